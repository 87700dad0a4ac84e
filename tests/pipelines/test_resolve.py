"""What a request leaves open is filled in; what plays no part is dropped."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rayreel.config.model import TransformerConfig
from rayreel.config.presets import (
    TINY_CONFIG,
    SamplingDefaults,
    default_guidance,
    sampling_defaults,
)
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT, RenderRequest
from rayreel.diffusion.schedulers import STAGE_2_SIGMAS
from rayreel.types import ScaleFactors
from tests.pipelines.small import resolved as resolved_request


@dataclass
class Files:
    """What is read of a model: the defaults of its generation, and how long clips can be."""

    defaults: SamplingDefaults
    factors: ScaleFactors = field(default_factory=ScaleFactors)
    transformer: Any = field(
        default_factory=lambda: TransformerConfig(**TINY_CONFIG["transformer"])
    )
    transformer_file: Any = None


@dataclass
class Version:
    model_version: tuple[int, ...]


def resolved(version=(2, 0), **fields):
    files: Any = Files(sampling_defaults(version), transformer_file=Version(version))
    request = {"prompt": "A fox.", "pipeline": "two_stage", **fields}
    return resolved_request(RenderRequest.model_validate(request), files)


REQUESTS = [
    {},
    {"pipeline": "one_stage", "audio": False},
    {"pipeline": "distilled", "images": [{"path": "a.png"}]},
    {"video_guidance": {"cfg_scale": 5.0}, "negative_prompt": "", "steps": 3},
]


@pytest.mark.parametrize("fields", REQUESTS, ids=str)
def test_resolving_again_changes_nothing(fields):
    once = resolved(**fields)
    again: Any = Files(sampling_defaults((2, 0)), transformer_file=Version((2, 0)))
    assert resolved_request(once, again) == once


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


@pytest.mark.parametrize(
    ("pipeline", "idle"),
    [
        ("text_to_audio", {"width": 64, "height": 64, "crf": 3}),
        ("two_stage", {"audio_format": "m4a"}),
        ("two_stage", {"stage2_sigmas": STAGE_2_SIGMAS}),
        ("two_stage", {"loras": [{"path": "a", "strength": 0}]}),
        ("two_stage", {"chain": {"overlap": 3}}),
        ("one_stage", {"stage2_sigmas": (0.5, 0)}),
        ("image", {"loras": [{"path": "a"}], "sampler": "res_2s"}),
    ],
    ids=str,
)
def test_what_changes_nothing_is_dropped(pipeline, idle):
    plain = {"pipeline": pipeline, "num_frames": 1 if pipeline == "image" else 9}
    assert resolved(**plain, **idle) == resolved(**plain)


def test_a_negative_prompt_that_nothing_is_pushed_from_is_dropped():
    free = {"cfg_scale": 1.0}
    request = resolved(video_guidance=free, audio_guidance=free, negative_prompt="dull")
    assert request.negative_prompt is None
    pushed = resolved(video_guidance=free, audio_guidance=free, sampler="cfg_plus_plus")
    assert pushed.negative_prompt


def test_a_seed_is_not_invented():
    assert resolved().seed is None
