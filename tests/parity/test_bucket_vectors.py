"""Resolution buckets as the LTX-2 trainer assigns them."""

import pytest

from rayreel.config.buckets import Bucket, split_buckets
from rayreel.data.buckets import choose_bucket, scaled_buckets
from tests.parity.vectors import entries

FILE = "common/data_buckets.json"


def buckets(text: str) -> list[Bucket]:
    return [Bucket.model_validate(part) for part in split_buckets(text)]


def sizes(found: Bucket) -> list[int]:
    return [found.num_frames, found.height, found.width]


@pytest.mark.parametrize("entry", entries(FILE, "bucket_assignment"))
def test_clips_go_to_the_bucket_of_the_trainer(entry):
    found = choose_bucket(
        buckets(entry["buckets_WxHxF"]),
        width=entry["item_w"],
        height=entry["item_h"],
        num_frames=entry["item_frames"],
    )
    assert (found and sizes(found)) == entry["bucket_FHW"]


@pytest.mark.parametrize("entry", entries(FILE, "scaled_buckets"))
def test_buckets_of_references_are_those_of_the_trainer(entry):
    found = scaled_buckets(buckets(entry["buckets"]), entry["factor"])
    assert [sizes(bucket) for bucket in found] == entry["FHW"]
