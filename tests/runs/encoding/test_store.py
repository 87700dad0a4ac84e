"""Samples are told apart by what they are made of, and only what changed is encoded anew."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.encode import EncodeSpec
from rayreel.data.samples import Scan
from rayreel.runs.encoding.captions import Caption, cleaned
from rayreel.runs.encoding.samples import Candidate
from rayreel.runs.encoding.store import Sample, SampleStore
from rayreel.types import TextFeatures
from tests.runs.encoding.clips import decided, row, spec, video

FILES = ModelFiles(locate_model("tiny"))


@pytest.fixture
def job(tmp_path) -> EncodeSpec:
    return spec(output=str(tmp_path))


def store_of(job: EncodeSpec) -> SampleStore:
    return SampleStore(job, FILES)


def candidate(job: EncodeSpec, scan: Scan | None = None, **media: Any) -> Candidate:
    one = row(**media)
    scans = {column: video(column) for column in one.media} | {"video": scan or video()}
    return decided(job, one, **scans)[0]


def captioned(text: str, **fields: Any) -> Caption:
    return cleaned(text, spec(captions=fields).captions)


def sample(job: EncodeSpec, text: str = "A fox.", scan: Scan | None = None, **media: Any) -> Sample:
    caption = captioned(text, **job.captions.model_dump(include={"trigger"}))
    return store_of(job).sample(candidate(job, scan, **media), caption)


def encode(job: EncodeSpec, *samples: Sample) -> None:
    """What a job does, without numbers."""
    store = store_of(job)
    media = {medium: torch.zeros(2) for one in samples for medium in one.candidate.media.values()}
    store.latents.put(media)
    features = TextFeatures(video=torch.zeros(1, 2), audio=torch.zeros(1, 2), length=1024)
    store.texts.put({one.caption.text: features for one in samples if one.caption})


def test_two_captions_of_a_clip_are_two_samples_that_share_latents(job):
    fox, cat = sample(job), sample(job, "A cat.")
    assert fox.sample_id != cat.sample_id
    assert fox.keys == cat.keys


def test_copies_of_a_clip_with_one_caption_are_the_same_sample(job):
    assert sample(job, video="a.mp4").sample_id == sample(job, video="b.mov").sample_id
    assert sample(job).sample_id != sample(job, scan=video("d")).sample_id


def test_a_caption_counts_as_it_is_encoded(job):
    plain, opened = sample(job, "a fox."), sample(job, "This video shows a fox.")
    assert plain.sample_id == opened.sample_id


def test_a_trigger_changes_texts_and_no_latents(job):
    other = spec(output=job.output, captions={"trigger": "tok"})
    before, after = sample(job), sample(other)
    encode(job, before)
    assert after.sample_id != before.sample_id
    assert [one.text for one in store_of(other).new_texts(["A fox.", "tok A fox."])] == [
        "tok A fox."
    ]
    assert store_of(other).new_latents([after]) == []
    assert list(store_of(other).stale(after)) == [
        "caption: this text was never encoded: 'tok A fox.' (trigger 'tok' put in front)"
    ]


def test_another_bucket_changes_latents_and_no_text(job):
    other = spec(output=job.output, buckets="64x64x17")
    before, after = sample(job), sample(other)
    encode(job, before)
    store = store_of(other)
    assert after.sample_id != before.sample_id
    assert store.new_texts(["A fox."]) == []
    (item,) = store.new_latents([after])
    assert item.missing == {after.keys["video"]}
    assert list(store.stale(after)) == [
        "video: this part of the file was encoded with another crop (0,0; here 0,16) "
        "and another bucket (96x64x17; here 64x64x17)"
    ]


def test_every_part_that_is_not_there_says_why(job):
    one = sample(job, "A fox. " * 20, reference_video="r.mp4", video_mask="m.mp4")
    found = list(store_of(job).stale(one))
    assert [said.split(":")[0] for said in found] == [
        *("video", "audio", "reference video", "video mask", "caption"),
    ]
    assert all("never encoded" in said for said in found)
    assert len(found[-1]) < 200
    encode(job, one)
    assert list(store_of(job).stale(one)) == []


def test_what_was_encoded_is_shared_through_the_store(job, tmp_path):
    encode(job, sample(job))
    other = spec(output=str(tmp_path / "other"), store=job.output)
    assert store_of(other).new_latents([sample(other)]) == []
    alone = spec(output=str(tmp_path / "alone"))
    assert len(store_of(alone).new_latents([sample(alone)])) == 1


def test_parts_of_a_sample_are_items_of_their_own_kind(job):
    media: dict[str, Any] = {
        "reference_video": "r.mp4",
        "video_mask": "m.mp4",
        "audio_mask": "m.wav",
    }
    one = sample(job, **media)
    items = store_of(job).new_latents([one, sample(job, "A cat.", **media)])
    parts = [[column for column, key in one.keys.items() if key in item.missing] for item in items]
    assert parts == [["video", "audio"], ["reference_video"], ["video_mask", "audio_mask"]]


def test_a_part_that_is_there_leaves_the_rest_of_its_group_as_it_is(job):
    samples = [sample(job, scan=video(name)) for name in "abc"]
    encode(job, samples[1])
    store = store_of(job)
    video_key = samples[0].keys["video"]
    store.latents.put({samples[0].candidate.media["audio"]: torch.zeros(2)})
    found = store.new_latents(samples)
    assert [(set(item.missing), item.group_size) for item in found] == [
        ({video_key}, 3),
        (set(samples[2].keys.values()), 3),
    ]
    assert len({item.group for item in found}) == 1


def test_the_spec_may_say_how_many_share_a_call(job):
    job = job.model_copy(update={"stages": spec(stages={"latents": {"batch_size": 2}}).stages})
    samples = [sample(job, scan=video(name)) for name in "abc"]
    assert [item.group_size for item in store_of(job).new_latents(samples)] == [2, 2, 1]


def test_texts_that_are_new_come_once_and_the_shortest_first(job):
    encode(job, sample(job))
    found = store_of(job).new_texts(["A long fox.", "A fox.", "A hen.", "A long fox.", "A cat."])
    assert [one.text for one in found] == ["A cat.", "A hen.", "A long fox."]
    assert len({one.item_id for one in found}) == 3


def test_a_sample_without_a_text_is_its_media(job):
    one = store_of(job).sample(candidate(job), None)
    again = store_of(job).sample(replace(candidate(job), index=3), None)
    assert one.sample_id == again.sample_id != sample(job).sample_id
    encode(
        job, one.__class__(candidate=one.candidate, caption=captioned("x"), keys={}, sample_id="")
    )
    assert list(store_of(job).stale(one)) == []
