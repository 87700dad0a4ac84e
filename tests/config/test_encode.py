"""What a person may write of an encode job, and what is said of the rest."""

import re

import pytest

from rayreel.config.buckets import Bucket, bucket_faults
from rayreel.config.encode import EncodeSpec, RangeSpec
from rayreel.config.load import parse
from rayreel.errors import SpecError


def spec(**fields) -> EncodeSpec:
    return parse({"dataset": "list.csv", **fields}, EncodeSpec, where="job.yaml")


@pytest.mark.parametrize(
    "written",
    [
        "768x448x89;512x768x1",
        " 768x448x89 ; 512 x 768 x 1 ;",
        ["768x448x89", "512x768x1"],
        [{"width": 768, "height": 448, "num_frames": 89}, "512x768x1"],
    ],
)
def test_buckets_are_a_text_or_a_list(written):
    assert list(map(str, spec(buckets=written).buckets)) == ["768x448x89", "512x768x1"]


def test_no_buckets_are_none():
    assert spec().buckets == spec(buckets="").buckets == spec(buckets=" ; ").buckets == ()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"buckets": "768x448"}, "'768x448' should be WIDTHxHEIGHTxFRAMES, such as 768x448x89"),
        ({"buckets": "768x448x89;1x2x"}, "field 'buckets.1': bucket '1x2x' should be"),
        ({"buckets": "0x448x89"}, "field 'buckets.0.width': should be greater than or equal to 1"),
        ({"audio_durations": [2, 0]}, "field 'audio_durations.1': should be greater than 0"),
        ({"filters": {"black": {"max": float("nan")}}}, "should be a finite number"),
        ({"filters": {"black": {}}}, "field 'filters.black': expected min, max or both"),
        ({"filters": {"black": {"min": 2, "max": 1}}}, "min=2 is more than max=1"),
        ({"filters": {"black": {"mx": 1}}}, "field 'filters.black.mx'"),
        ({"skip": ["vidoe"]}, "should be 'video', 'audio', 'reference', 'masks' or 'text'"),
        ({"duplicate_distance": 65}, "should be less than or equal to 64, got 65"),
        ({"stages": {"latent": {}}}, "field 'stages.latent'"),
        ({"captions": {"captioner": {"type": "llava"}}}, "field 'captions.captioner'"),
        ({"scenes": {"detector": "cuts"}}, "field 'scenes.detector'"),
        ({"bucket": "768x448x89"}, "'buckets'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(fields, said):
    with pytest.raises(SpecError) as caught:
        spec(**fields)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min": 2}, "at least 2"),
        ({"max": 0.5}, "at most 0.5"),
        ({"min": 0, "max": 1}, "0 to 1"),
        ({"min": 1, "max": 1}, "1 to 1"),
    ],
)
def test_ranges_are_told_in_words(limits, words):
    assert str(RangeSpec(**limits)) == words


@pytest.mark.parametrize(
    ("bucket", "said"),
    [
        ("700x448x89", ["bucket 700x448x89: width 700 is no multiple of 32; nearest is 704"]),
        (
            "8x450x1",
            ["width 8 is no multiple of 32; nearest is 32", "height 450 .* nearest is 448"],
        ),
        ("64x64x90", ["90 frames do not fit the video VAE .8k . 1.; nearest are 89 and 97"]),
        ("64x64x8", ["nearest are 1 and 9"]),
        ("64x96x1", []),
    ],
)
def test_sizes_that_do_not_fit_a_video_vae_name_the_nearest(bucket, said):
    found = bucket_faults([Bucket.model_validate(bucket)], time=8, space=32)
    assert len(found) == len(said)
    for fault, words in zip(found, said, strict=True):
        assert re.search(words, fault)


def test_a_pass_overrides_only_what_it_sets():
    job = spec(workers={"replicas": 3, "dtype": "float32"}, stages={"latents": {"replicas": 1}})
    assert (job.stage("latents").replicas, job.stage("latents").dtype) == (1, "float32")
    assert job.stage("scan") == job.workers
