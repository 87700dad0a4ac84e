import pytest
import torch

from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.steppers import (
    AncestralEuler,
    CFGPlusPlusEuler,
    Euler,
    GradientEstimation,
    to_velocity,
)

X = torch.full((1, 1, 1), 2.0)


def estimate(x0, uncond=None):
    return Denoised(
        x0=torch.full_like(X, x0), uncond=None if uncond is None else torch.full_like(X, uncond)
    )


@pytest.mark.parametrize(("eta", "expected"), [(0, 1.695876), (0.5, 1.753755), (1, 1.566617)])
def test_ancestral_step(eta, expected):
    stepper = AncestralEuler(noise=torch.ones_like, eta=eta)
    moved = stepper.step(X, estimate(0.5), 0.909375, 0.725)
    assert moved.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("eta", "expected"), [(0, 1.703101), (1, 1.248361)])
def test_cfg_plus_plus_step(eta, expected):
    stepper = CFGPlusPlusEuler(noise=torch.ones_like, eta=eta)
    moved = stepper.step(X, estimate(0.5, uncond=0.4), 0.909375, 0.725)
    assert moved.item() == pytest.approx(expected, abs=1e-5)


def test_gradient_estimation_extrapolates_the_velocity():
    stepper, sample, path = GradientEstimation(), X, []
    for sigma, sigma_next in ((1, 0.8), (0.8, 0.4), (0.4, 0)):
        sample = stepper.step(sample, Denoised(x0=0.5 + 0.1 * sample), sigma, sigma_next)
        path.append(sample.item())
    assert path == pytest.approx([1.74, 1.194, 0.6194], abs=1e-4)


def test_cfg_plus_plus_needs_the_unconditional_estimate():
    with pytest.raises(ValueError, match="unconditional"):
        CFGPlusPlusEuler(noise=torch.ones_like).step(X, estimate(0.5), 0.8, 0.6)


def test_clean_sample_has_no_velocity():
    with pytest.raises(ValueError, match="sigma"):
        to_velocity(X, X, 0.0)


@pytest.mark.parametrize(
    "stepper",
    [
        Euler(),
        GradientEstimation(),
        AncestralEuler(noise=torch.ones_like),
        CFGPlusPlusEuler(noise=torch.ones_like),
    ],
)
def test_steps_keep_the_dtype(stepper):
    denoised = Denoised(x0=torch.zeros_like(X).bfloat16(), uncond=torch.zeros_like(X).bfloat16())
    assert stepper.step(X.bfloat16(), denoised, 0.8, 0.6).dtype == torch.bfloat16
