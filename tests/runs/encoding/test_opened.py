"""A job is checked before anything starts."""

from pathlib import Path

import pytest

from rayreel.config.encode import EncodeSpec
from rayreel.errors import SpecError
from rayreel.runs.encoding.opened import check, open_encode


@pytest.fixture
def job(tmp_path: Path):
    """Makes specs of a list of one video."""
    (tmp_path / "list.csv").write_text("video,caption\na.mp4,A fox.\n")
    (tmp_path / "sound.csv").write_text("audio,caption\na.wav,A fox.\n")

    def made(name: str = "list.csv", **fields) -> EncodeSpec:
        paths = {"dataset": str(tmp_path / name), "output": str(tmp_path / "out")}
        return EncodeSpec.model_validate({"buckets": "96x64x17", **paths, **fields})

    return made


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"buckets": "100x64x18;64x64x9"},
            "field 'buckets': bucket 100x64x18: width 100 is no multiple of 32; nearest is 96\n"
            "field 'buckets': bucket 100x64x18: 18 frames do not fit the video VAE (8k + 1); "
            "nearest are 17 and 25",
        ),
        (
            {"filters": {"blak": {"max": 1}}},
            "field 'filters.blak': there is no such measure; nearest is 'black'",
        ),
        (
            {"filters": {"zzz": {"max": 1}}},
            "field 'filters.zzz': there is no such measure; known: duration_s, fps, width, height, "
            "num_frames, black, frozen, silence, has_audio, audio_mismatch_s",
        ),
        (
            {"buckets": "128x64x17;64x64x9", "reference": {"downscale": 2}},
            "field 'reference.downscale': 2 needs a single bucket, as target and reference choose "
            "theirs on their own; there are 2",
        ),
        (
            {"reference": {"downscale": 2}},
            "field 'reference.downscale': of references, bucket 48x32x17: width 48 is no multiple "
            "of 32; nearest is 64",
        ),
        (
            {"buckets": "128x64x17", "reference": {"downscale": 3}},
            "field 'reference.downscale': bucket 128x64x17: width 128 cannot be divided by 3; "
            "references are smaller than their targets by a divisor of both",
        ),
        (
            {"reference": {"stride": 4}},
            "field 'reference.stride': 4 does not fit bucket 96x64x17: 16 must be a multiple of "
            "4 x 8",
        ),
        (
            {"buckets": ()},
            "field 'buckets': videos are brought to sizes, and none is named; expected some, such "
            "as 768x448x89;768x448x49",
        ),
    ],
)
def test_a_spec_that_does_not_fit_says_what_does(job, fields, said):
    with pytest.raises(SpecError) as caught:
        check(job(**fields))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "fields",
    [
        {"buckets": "128x64x17", "reference": {"downscale": 2, "stride": 2}},
        {"buckets": "96x64x1", "reference": {"stride": 3}},
        {"name": "sound.csv", "buckets": ()},
        {"filters": {"black": {"max": 1}}, "audio_durations": [1.5]},
    ],
)
def test_what_fits_is_let_through(job, fields):
    files, rows = check(job(**fields))
    assert (files.factors.time, rows.num_rows) == (8, 1)


def test_all_faults_are_told_together(job):
    fields = {"buckets": "100x64x9", "filters": {"x": {"max": 1}}, "reference": {"stride": 3}}
    with pytest.raises(SpecError) as caught:
        check(job(**fields))
    places = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert places == ["field 'buckets'", "field 'filters.x'", "field 'reference.stride'"]


def test_records_lie_in_the_output_unless_jobs_share_a_store(job):
    with open_encode(job()) as run:
        assert run.store.uri == run.spec.output == run.storage.uri
    with open_encode(job(store="memory://shared")) as run:
        assert run.store.uri == "memory://shared"
