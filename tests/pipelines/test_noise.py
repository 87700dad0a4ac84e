"""Noise depends on the seed and the purpose alone."""

from typing import Any

import pytest
import torch

from rayreel.pipelines import PIPELINE_CLASSES, phases
from rayreel.pipelines.phases import Phase
from rayreel.pipelines.states import request_noise
from tests.pipelines.small import (
    PIPELINE_NAMES,
    pinned,
    small,
    small_resolved,
    with_transformer,
)

TOKENS = torch.empty(1, 6, 4)


class Recorder:
    """Predicts nothing, and keeps the streams that it is called with."""

    def __init__(self):
        self.calls: list[Any] = []

    def __call__(self, video, audio, *_):
        self.calls.append((video, audio))
        return tuple(stream and torch.zeros_like(stream.latent) for stream in (video, audio))


def noised(ledger, requests):
    """Latents of video and audio at the first step, whose noise level is 1."""
    model = Recorder()
    phase = Phase(name="stage1", downscale=1, sigmas=torch.tensor([1.0, 0.0]), guided=False)
    batch = phases.encode(ledger, requests)
    phases.denoise(with_transformer(ledger, model), batch, phase)
    return [stream.latent for stream in model.calls[0]]


def drawn(request, purpose="video/stage1"):
    return request_noise(request, purpose)(TOKENS)


def test_noise_does_not_change_with_what_is_asked_for():
    other = small(prompt="A boat.", steps=7, width=256, pipeline="distilled")
    assert torch.equal(drawn(small()), drawn(other))


def test_noise_changes_with_seed_and_purpose():
    draws = [drawn(small()), drawn(small(seed=2)), drawn(small(), "video/stage2")]
    draws.append(drawn(small(), "audio/stage1"))
    for index, draw in enumerate(draws):
        assert not any(torch.allclose(draw, other) for other in draws[:index])


def test_another_prompt_starts_from_the_same_noise(ledger):
    requests = [small_resolved(ledger.files, prompt=p) for p in ("A fox.", "A boat.")]
    for stream in noised(ledger, requests):
        assert torch.equal(stream[0], stream[1])


def test_a_keyframe_does_not_change_the_noise_of_the_target(ledger, picture):
    plain = small_resolved(ledger.files)
    conditioned = small_resolved(ledger.files, images=(pinned(picture, 8, 0.5),))
    without, without_audio = noised(ledger, [plain])
    video, audio = noised(ledger, [conditioned])
    assert video.shape[1] > without.shape[1]
    assert torch.equal(video[:, : without.shape[1]], without)
    assert torch.equal(audio, without_audio)


def test_a_place_in_a_batch_does_not_change_the_noise(ledger):
    requests = [small_resolved(ledger.files, seed=seed) for seed in (5, 6, 7)]
    together, alone = noised(ledger, requests), noised(ledger, requests[2:])
    for ours, expected in zip(together, alone, strict=True):
        assert torch.equal(ours[2:], expected)


@pytest.mark.parametrize("pipeline_name", PIPELINE_NAMES)
def test_a_request_gives_the_same_clip_again(ledger, picture, pipeline_name):
    request = small(pipeline=pipeline_name, images=(pinned(picture, 8, 0.5),))
    pipeline: Any = PIPELINE_CLASSES[pipeline_name](ledger)
    first, second = pipeline(request), pipeline(request)
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.audio.waveform, second.audio.waveform)
