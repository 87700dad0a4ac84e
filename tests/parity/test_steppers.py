import re

import pytest
import torch

from rayreel.diffusion.protocols import Denoised, Stepper
from rayreel.diffusion.res2s import coefficients, sde_step
from rayreel.diffusion.steppers import (
    AncestralEuler,
    CFGPlusPlusEuler,
    Euler,
    to_denoised,
    to_velocity,
)
from tests.parity.vectors import INDEX, cases

FILE = "common/diffusion_steps.safetensors"


def levels(case):
    index = case.options["step_index"]
    return case.inputs["sigmas"][index : index + 2].tolist()


def double_tolerance():
    """Tolerance of float64 outputs, which the index states in words."""
    (stated,) = re.findall(r"float64.*: (\S+)", INDEX[FILE]["tolerance"]["remark"])
    return float(stated)


@pytest.mark.parametrize("case", cases(FILE, "euler_*"))
def test_euler_steps(case):
    inputs, options = case.inputs, case.options
    stepper: Stepper = Euler()
    if "eta" in options:
        kind = CFGPlusPlusEuler if "cfg_pp" in case.name else AncestralEuler
        stepper = kind(
            noise=lambda _: inputs["noise"], eta=options["eta"], s_noise=options["s_noise"]
        )
    denoised = Denoised(x0=inputs["denoised"], uncond=inputs["uncond_denoised"])
    case.assert_close(stepper.step(inputs["sample"], denoised, *levels(case)), "next")


@pytest.mark.parametrize("case", cases(FILE, "res2s_[0-9]*"))
def test_second_order_noise_step(case):
    inputs = {name: tensor.double() for name, tensor in case.inputs.items()}
    sigma, sigma_next = (torch.full((1, 1, 1), level).double() for level in levels(case))
    stepped = sde_step(
        inputs["sample"],
        inputs["denoised"],
        inputs["noise"],
        sigma,
        sigma_next,
        eta=case.options["eta"],
    )
    case.assert_close(stepped, "next", rtol=0, atol=double_tolerance())


@pytest.mark.parametrize("case", cases(FILE, "res2s_coefficients"))
def test_second_order_coefficients(case):
    rows = [coefficients(h) for h in case.options["h"]]
    table = torch.tensor(rows, dtype=torch.float64)
    case.assert_close(table, "coef", rtol=0, atol=double_tolerance())


@pytest.mark.parametrize("case", cases(FILE, "conversions"))
def test_velocity_and_denoised_conversions(case):
    inputs, sigma = case.inputs, case.options["sigma"]
    sample = inputs["sample"]
    velocity = to_velocity(sample, inputs["denoised"], sigma)
    case.assert_close(velocity, "velocity")
    # The other direction reads the estimate as if it were a velocity.
    given = inputs["denoised"]
    case.assert_close(to_denoised(sample, given, sigma), "denoised")
    case.assert_close(to_denoised(sample, given, inputs["timesteps"]), "denoised_per_token")
