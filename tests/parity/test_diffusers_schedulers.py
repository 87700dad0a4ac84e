"""Ours against diffusers' scheduler with the settings that it publishes for LTX-2."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS, LTX2Scheduler
from rayreel.diffusion.steppers import Euler, to_denoised


def theirs(steps, tokens):
    scheduler: Any = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, time_shift_type="exponential", shift_terminal=0.1
    )
    shift = 0.95 + (tokens - 1024) * (2.05 - 0.95) / (4096 - 1024)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=shift)
    return scheduler


@pytest.mark.parametrize("tokens", [1024, 1536, 4096, 8160])
@pytest.mark.parametrize("steps", [4, 15, 40])
def test_sigmas_are_equal_for_equal_tokens(steps, tokens):
    ours = LTX2Scheduler(tokens=tokens).sigmas(steps)
    torch.testing.assert_close(ours, theirs(steps, tokens).sigmas, rtol=0, atol=2e-6)


def test_shift_is_not_clamped():
    assert LTX2Scheduler(tokens=8160).shift == pytest.approx(3.505208, abs=1e-6)
    assert math.isclose(LTX2Scheduler(tokens=1024).shift, 0.95)


def test_euler_steps_are_equal():
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.array(DISTILLED_SIGMAS[:-1]))
    generator = torch.Generator().manual_seed(0)
    ours = sample = torch.randn(1, 6, 4, generator=generator)
    for step, timestep in enumerate(scheduler.timesteps):
        velocity = torch.randn(1, 6, 4, generator=generator)
        sigma, sigma_next = scheduler.sigmas[step : step + 2].tolist()
        sample = scheduler.step(velocity, timestep, sample).prev_sample
        denoised = Denoised(x0=to_denoised(ours, velocity, sigma))
        ours = Euler().step(ours, denoised, sigma, sigma_next)
    torch.testing.assert_close(ours, sample, rtol=0, atol=1e-5)
