"""What holds for every size, schedule and seed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rayreel.config.sampling import Guidance
from rayreel.diffusion.guiders import GUIDERS, MultiModalGuider
from rayreel.diffusion.loop import denoise
from rayreel.diffusion.patchifiers import (
    patchify_audio,
    patchify_video,
    unpatchify_audio,
    unpatchify_video,
)
from rayreel.diffusion.protocols import Denoised, Stepper
from rayreel.diffusion.schedulers import BetaScheduler, LinearQuadraticScheduler, LTX2Scheduler
from rayreel.diffusion.steppers import (
    AncestralEuler,
    CFGPlusPlusEuler,
    Euler,
    GradientEstimation,
    to_denoised,
)
from rayreel.types import AudioLatentShape, LatentState, VideoLatentShape

small = st.integers(1, 4)
seeds = st.integers(0, 2**31)
steps = st.integers(1, 60)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.tuples(small, small, small, small, small), st.sampled_from([1, 2]))
def test_video_comes_back_from_its_patches(size, patch_size):
    batch, channels, frames, height, width = size
    height, width = height * patch_size, width * patch_size
    shape = VideoLatentShape(
        batch=batch, channels=channels, frames=frames, height=height, width=width
    )
    latent = normal(0, *shape.to_tuple())
    tokens = patchify_video(latent, patch_size)
    assert tokens.shape == (batch, shape.tokens // patch_size**2, channels * patch_size**2)
    assert torch.equal(unpatchify_video(tokens, shape, patch_size), latent)


@given(st.tuples(small, small, small, small))
def test_audio_comes_back_from_its_patches(size):
    batch, channels, frames, bins = size
    shape = AudioLatentShape(batch=batch, channels=channels, frames=frames, bins=bins)
    latent = normal(0, *size)
    assert torch.equal(unpatchify_audio(patchify_audio(latent), shape), latent)


def assert_falls_from_one_to_zero(sigmas):
    assert sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas[0], torch.tensor(1.0), rtol=0, atol=1e-4)
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


@given(steps, st.integers(16, 16384))
def test_shifted_sigmas_fall_from_one_to_zero(steps, tokens):
    sigmas = LTX2Scheduler(tokens=tokens).sigmas(steps)
    assert len(sigmas) == steps + 1
    assert_falls_from_one_to_zero(sigmas)


@given(steps)
def test_linear_quadratic_sigmas_fall_from_one_to_zero(steps):
    sigmas = LinearQuadraticScheduler().sigmas(steps)
    assert len(sigmas) == steps + 1
    assert_falls_from_one_to_zero(sigmas)


@given(st.integers(1, 400))
def test_beta_sigmas_fall_from_one_to_zero(steps):
    sigmas = BetaScheduler().sigmas(steps)
    assert len(sigmas) <= steps + 1
    assert_falls_from_one_to_zero(sigmas)


@given(steps, seeds, st.sampled_from(["euler", "gradient", "ancestral", "cfg++"]))
def test_steppers_fed_the_true_velocity_land_on_the_clean_sample(steps, seed, kind):
    clean, noise = normal(seed, 2, 1, 5, 3)

    def true_denoiser(video, audio, sigma, step_index):
        velocity = (video.latent - clean) / sigma
        x0 = to_denoised(video.latent, velocity, sigma)
        return Denoised(x0=x0, uncond=x0), None

    steppers: dict[str, Stepper] = {
        "euler": Euler(),
        "gradient": GradientEstimation(),
        "ancestral": AncestralEuler(noise=lambda like: normal(seed, *like.shape)),
        "cfg++": CFGPlusPlusEuler(noise=lambda like: normal(seed, *like.shape)),
    }
    state = LatentState(
        latent=noise,
        clean_latent=torch.zeros_like(clean),
        denoise_mask=torch.ones(1, 5, 1),
        positions=torch.empty(0),
    )
    sigmas = LTX2Scheduler().sigmas(steps)
    video, _ = denoise(sigmas, (state, None), true_denoiser, (steppers[kind], Euler()))
    assert video is not None
    torch.testing.assert_close(video.latent, clean, rtol=0, atol=1e-5)


@given(seeds, st.floats(0, 1), st.sampled_from(sorted(GUIDERS)), st.floats(0, 2))
def test_guidance_that_is_off_changes_nothing(seed, rescale, method, eta):
    cond, other = normal(seed, 2, 2, 5, 3)
    off = 0 if method == "legacy_apg" else 1
    guidance = Guidance(method=method, cfg_scale=off, eta=eta, rescale_scale=rescale)
    assert not MultiModalGuider(guidance).needs_uncond
    combined = MultiModalGuider(guidance).combine(
        cond, uncond=other, perturbed=other, isolated=other
    )
    torch.testing.assert_close(combined, cond, rtol=1e-6, atol=0)


@given(seeds, st.sampled_from(sorted(GUIDERS)), st.floats(-1, 1))
def test_equal_predictions_are_pushed_nowhere(seed, method, momentum):
    cond = normal(seed, 1, 5, 3)
    guider = MultiModalGuider(Guidance(method=method, cfg_scale=3, momentum=momentum))
    # The projection of a prediction onto itself is the prediction up to rounding.
    torch.testing.assert_close(guider.combine(cond, uncond=cond), cond, rtol=1e-5, atol=1e-5)
