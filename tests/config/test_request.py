"""What a request may say."""

import pytest
from pydantic import ValidationError

from rayreel.config.request import RenderRequest


def request(**fields) -> RenderRequest:
    return RenderRequest.model_validate({"prompt": "a fox", **fields})


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
        {"seconds": 0},
        {"video": False, "audio": False},
        {"sigmas": [1.0]},
        {"sigmas": [1.0, 0.5]},
        {"sigmas": [0.5, 0.9, 0.0]},
        {"sigmas": [1.5, 0.0]},
        {"retake": {"path": "a.mp4", "start_s": 2, "end_s": 1}},
        {"retake": {"path": "a.mp4", "start_s": 1, "end_s": 2, "video": False, "audio": False}},
        {"extend": {}},
        {"extend": {"path": "a.mp4", "clip": "0a"}},
        {"extend": {"path": "a.mp4", "direction": "up"}},
        {"chain": {"overlap": 0}},
        {"references": [{"path": "a.mp4", "attention": 2}]},
        {"soundtrack": {"path": "a.wav", "start_s": -1}},
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


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "at least 2 noise levels.*got 0"),
        ((1.0,), "at least 2 noise levels.*got 1"),
        ((1.5, 0.5, 0.0), "level 0 is 1.5; expected .* at most 1"),
        ((0.0, 0.0), "level 0 is 0"),
        ((float("nan"), 0.0), "level 0 is nan"),
        ((1.0, 0.5, 0.5, 0.0), "level 2 is 0.5.*before it, 0.5"),
        ((1.0, 0.5, 0.7, 0.0), "level 2 is 0.7.*before it, 0.5"),
        ((1.0, float("nan"), 0.0), "level 1 is nan"),
        ((1.0, 0.5, 0.5 - 1e-12, 0.0), "level 2 is 0.5"),
        ((1.0, 0.5), "level 1, the last, is 0.5; expected 0"),
        ((1.0, 0.5, -0.1), "level 2, the last, is -0.1; expected 0"),
    ],
)
@pytest.mark.parametrize("field", ["sigmas", "stage2_sigmas"])
def test_wrong_noise_levels_are_told_with_their_place(field, levels, message):
    with pytest.raises(ValidationError, match=message):
        request(**{field: levels})


def test_a_request_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        request().seed = 1


def test_duration_follows_frames_and_rate():
    assert request(num_frames=49, fps=24.5).duration_s == 2
