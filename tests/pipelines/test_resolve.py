"""What a request leaves open is filled in; what plays no part is dropped."""

from dataclasses import dataclass
from typing import Any

import pytest

from rayreel.config.presets import SamplingDefaults, default_guidance, sampling_defaults
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT, RenderRequest
from rayreel.pipelines.resolve import resolve


@dataclass
class Files:
    """The defaults of a generation are all that is read of a model."""

    defaults: SamplingDefaults


def resolved(version=(2, 0), **fields):
    files: Any = Files(sampling_defaults(version))
    return resolve(RenderRequest.model_validate({"prompt": "A fox.", **fields}), files)


REQUESTS = [
    {},
    {"pipeline": "one_stage", "audio": False},
    {"pipeline": "distilled", "images": [{"path": "a.png"}]},
    {"video_guidance": {"cfg_scale": 5.0}, "negative_prompt": "", "steps": 3},
]


@pytest.mark.parametrize("fields", REQUESTS, ids=str)
def test_resolving_again_changes_nothing(fields):
    once = resolved(**fields)
    again: Any = Files(sampling_defaults((2, 0)))
    assert resolve(once, again) == once


@pytest.mark.parametrize("fields", REQUESTS, ids=str)
def test_a_resolved_request_survives_json(fields):
    once = resolved(**fields)
    assert RenderRequest.model_validate_json(once.model_dump_json()) == once


@pytest.mark.parametrize(
    ("version", "steps", "block", "crf"),
    [((), 40, 29, 33), ((2, 0), 40, 29, 33), ((2, 3), 30, 28, 33), ((2, 5), 30, 28, 18)],
)
def test_open_fields_follow_the_generation(version, steps, block, crf):
    request = resolved(version, images=[{"path": "a.png"}, {"path": "b.png", "crf": 7}])
    assert request.steps == steps
    assert (request.video_guidance, request.audio_guidance) == default_guidance(block)
    assert [image.crf for image in request.images] == [crf, 7]
    assert request.negative_prompt == DEFAULT_NEGATIVE_PROMPT


def test_what_a_request_says_wins():
    request = resolved(steps=3, negative_prompt="", video_guidance={"cfg_scale": 5.0})
    assert request.steps == 3
    assert request.negative_prompt == ""
    default, _ = default_guidance(29)
    assert request.video_guidance == default.model_copy(update={"cfg_scale": 5.0})


def test_guidance_of_absent_sound_is_dropped():
    request = resolved(audio=False, audio_guidance={"cfg_scale": 5.0})
    assert request.audio_guidance is None
    assert request == resolved(audio=False)


def test_a_distilled_request_drops_what_steers_guidance():
    request = resolved(
        pipeline="distilled",
        steps=9,
        scheduler="linear_quadratic",
        negative_prompt="dull",
        video_guidance={"cfg_scale": 5.0},
        audio_guidance={"cfg_scale": 5.0},
    )
    assert request == resolved(pipeline="distilled")
    assert request.steps is request.negative_prompt is request.video_guidance is None


def test_a_seed_is_not_invented():
    assert resolved().seed is None
