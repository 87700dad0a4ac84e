"""The whole way from prompt to clip against diffusers' LTX-2 pipeline with the same weights.

What both can do alike: one stage, guidance by the negative prompt alone. Their noise levels follow
the number of tokens by default, ours do not; here their scheduler is set so that they are equal.
Guidance by perturbed and isolated passes is compared part by part elsewhere.
"""

import pytest
import torch

from rayreel.checkpoints.tiny import write_tiny
from rayreel.diffusion.schedulers import LTX2Scheduler
from rayreel.pipelines import OneStage, phases
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.bench.baseline import (
    call_arguments,
    denoise_with_diffusers,
    diffusers_pipeline,
    initial_noise,
)
from rayreel.runs.bench.oracles import diffusers_vocoder, give_weights
from rayreel.runs.bench.pipeline import clip_requests
from rayreel.runs.bench.spec import DiffusersLoopCase

CASE = DiffusersLoopCase(type="diffusers_loop", width=128, height=64, frames=17, steps=3, clips=2)


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def pair(request, tmp_path_factory):
    """Our pipeline and theirs, of each generation."""
    model = write_tiny(tmp_path_factory.mktemp("model"), request.param)
    ours = OneStage(ModelLedger(model, Device("cpu", "float32", "for tests")))
    return ours, diffusers_pipeline(ours.ledger.files)


@pytest.fixture(scope="module")
def case(pair):
    """A request, resolved and encoded."""
    ours, _ = pair
    request = clip_requests(CASE, ours.ledger.files)[1]
    return request, phases.encode(ours.ledger, [request])


@pytest.fixture(scope="module")
def latents(pair, case):
    return pair[0].generate(case[1])[0]


def test_texts_are_equal(pair, case):
    _, theirs = pair
    request, (encoded,) = case
    with torch.inference_mode():
        states, mask, _, _ = theirs.encode_prompt(request.prompt, do_classifier_free_guidance=False)
        video, audio, _ = theirs.connectors(states, mask)
    torch.testing.assert_close(encoded.context.video, video[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded.context.audio, audio[0], rtol=1e-4, atol=1e-5)


def test_noise_levels_are_equal(pair, case):
    _, theirs = pair
    denoise_with_diffusers(theirs, case[0], pair[0].ledger)
    expected = LTX2Scheduler().sigmas(CASE.steps)
    torch.testing.assert_close(theirs.scheduler.sigmas, expected, rtol=0, atol=2e-6)


def test_denoised_latents_are_equal(pair, case, latents):
    ours, theirs = pair
    expected = denoise_with_diffusers(theirs, case[0], ours.ledger)
    # Of values up to 6: guidance enlarges what rounding makes of each step.
    torch.testing.assert_close(latents.video, expected.video, rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.audio, expected.audio, rtol=0, atol=1e-3)


def test_frames_and_sound_are_equal(pair, case, latents):
    ours, theirs = pair
    request, _ = case
    video, audio = initial_noise(ours.ledger, request)
    frames, waveform = theirs(
        **call_arguments(request), latents=video, audio_latents=audio, output_type="np"
    )
    clip = ours.decode(request, latents).collect()
    expected = torch.from_numpy((frames[0] * 255).round()).int()
    # Rounding may go either way.
    assert (clip.frames.int() - expected).abs().max() <= 1
    assert clip.audio is not None
    torch.testing.assert_close(clip.audio.waveform, waveform[0], rtol=0, atol=2e-3)


def test_weights_that_do_not_fit_are_named(pair):
    ours, _ = pair
    with pytest.raises(RuntimeError, match="surplus"):
        give_weights(diffusers_vocoder(ours.ledger.files.vocoder), {"surplus": torch.zeros(1)})
