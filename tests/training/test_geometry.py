"""What latents of a model stand for."""

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.pipelines.states import audio_target, video_target
from rayreel.training.geometry import Geometry
from tests import layouts
from tests.pipelines.small import small_resolved, tiny_ledger


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return ModelFiles(layouts.video_only(tmp_path_factory.mktemp("silent")))


def test_targets_are_those_that_pipelines_generate():
    ledger = tiny_ledger()
    request, geometry = small_resolved(ledger.files), Geometry.of(ledger.files)
    picture, sound = video_target(ledger, request, 1), audio_target(ledger, request)
    latents = [torch.zeros(target.shape.to_tuple())[0] for target in (picture, sound)]
    assert geometry.video_target(latents[0], request.fps) == picture
    assert geometry.audio_target(latents[1]) == sound


def test_a_model_without_sound_needs_no_audio_vae(silent):
    assert Geometry.of(silent).factors == silent.factors
