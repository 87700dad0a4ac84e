"""Sampling defaults of each generation against the published ones."""

import re

import pytest

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.presets import default_guidance, sampling_defaults
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.pipelines.high_quality import HighQuality
from tests.parity.vectors import entries

GENERATIONS = [
    pytest.param(tuple(map(int, found[1].split("_"))), constants, id=name)
    for name, constants in dict(entries("common/schedulers.json", "constants")).items()
    if (found := re.fullmatch(r"LTX_(\d+(?:_\d+)*)_PARAMS", name))
]


@pytest.mark.parametrize(("version", "constants"), GENERATIONS)
def test_defaults_of_a_generation(version, constants):
    defaults = sampling_defaults(version)
    assert defaults.steps == constants["num_inference_steps"]
    assert defaults.image_crf == constants["default_image_crf"]
    video, audio = default_guidance(defaults.stg_block)
    assert video == Guidance(**constants["video_guider_params"])
    assert audio == Guidance(**constants["audio_guider_params"])


def test_defaults_of_the_high_quality_pipeline():
    constants = dict(entries("common/schedulers.json", "constants"))["LTX_2_3_HQ_PARAMS"]
    defaults = HighQuality.defaults(ModelFiles(locate_model("tiny")))
    assert defaults.steps == constants["num_inference_steps"]
    assert defaults.video == Guidance(**constants["video_guider_params"])
    assert defaults.audio == Guidance(**constants["audio_guider_params"])


@pytest.mark.parametrize(("version", "constants"), GENERATIONS)
def test_a_later_release_of_a_generation_keeps_its_defaults(version, constants):
    defaults = sampling_defaults((*version, 0, 9))
    assert defaults.steps == constants["num_inference_steps"]
    assert defaults.image_crf == constants["default_image_crf"]


@pytest.mark.parametrize(("version", "constants"), GENERATIONS)
def test_default_size_and_length_of_a_request(version, constants):
    request = RenderRequest(prompt="A fox.", pipeline="one_stage")
    assert (request.height, request.width) == (
        constants["stage_1_height"],
        constants["stage_1_width"],
    )
    assert (request.num_frames, request.fps) == (constants["num_frames"], constants["frame_rate"])


def test_a_checkpoint_without_a_version_counts_as_the_first_generation():
    assert sampling_defaults(()) == sampling_defaults((2, 0))
