"""Requests and what of them fits the video VAE."""

import pytest
from pydantic import ValidationError

from rayreel.config.request import PIPELINES, RenderRequest, geometry_faults


def request(**fields) -> RenderRequest:
    return RenderRequest.model_validate({"prompt": "a fox", **fields})


def geometry(**fields) -> dict[str, str]:
    return dict(geometry_faults(request(**fields)))


def test_defaults_fit_every_pipeline():
    assert not any(geometry(pipeline=pipeline) for pipeline in PIPELINES)


@pytest.mark.parametrize(
    ("frames", "nearest"), [(120, "113 and 121"), (122, "121 and 129"), (2, "1 and 9")]
)
def test_frames_that_are_not_8k_plus_1_name_both_neighbours(frames, nearest):
    fault = geometry(num_frames=frames)["num_frames"]
    assert fault.startswith(f"{frames} does not fit")
    assert fault.endswith(f"nearest are {nearest}")


@pytest.mark.parametrize("frames", [1, 9, 121])
def test_8k_plus_1_frames_fit(frames):
    assert not geometry(num_frames=frames)


@pytest.mark.parametrize(
    ("pipeline", "width", "multiple", "nearest"),
    [
        ("one_stage", 500, 32, "480 and 512"),
        ("two_stage", 480, 64, "448 and 512"),
        ("distilled", 480, 64, "448 and 512"),
        ("two_stage", 20, 64, "64"),
    ],
)
def test_sizes_name_the_nearest_multiples(pipeline, width, multiple, nearest):
    fault = geometry(pipeline=pipeline, width=width)["width"]
    assert f"{width} is not a multiple of {multiple}, which {pipeline} needs" in fault
    assert fault.endswith(f"nearest: {nearest}")


def test_one_stage_takes_multiples_of_32():
    assert not geometry(pipeline="one_stage", width=480, height=352)


def test_all_misfits_are_named():
    images = [{"path": "a.png"}, {"path": "b.png", "frame": 120}]
    found = geometry(num_frames=120, width=500, height=300, images=images)
    assert list(found) == ["num_frames", "width", "height", "images.1.frame"]


def test_other_factors_move_the_grid():
    fields = {"num_frames": 5, "width": 96, "height": 48}
    assert not dict(geometry_faults(request(**fields), time_factor=4, space_factor=8))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": " \n\t"},
        {"fps": 0},
        {"fps": float("nan")},
        {"seed": 2**63},
        {"steps": 0},
        {"crf": 52},
        {"pipeline": "three_stage"},
        {"images": [{"path": "a", "strength": 1.1}]},
        {"images": [{"path": "a", "frame": -1}]},
        {"video_guidance": {"cfg_scale": -1}},
        {"video_guidance": {"rescale_scale": 1.5}},
        {"video_guidance": {"stg_scale": float("inf")}},
        {"audio_guidance": {"stg_blocks": [-1]}},
        {"audio_guidance": {"skip_step": -1}},
    ],
)
def test_values_out_of_range_are_refused(fields):
    with pytest.raises(ValidationError):
        request(**fields)


def test_a_request_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        request().seed = 1


def test_duration_follows_frames_and_rate():
    assert request(num_frames=49, fps=24.5).duration_s == 2
