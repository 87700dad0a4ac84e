from typing import Any

import pytest
import torch

from rayreel.config.sampling import Guidance, GuidanceBin
from rayreel.diffusion.guiders import (
    APGGuider,
    CFGGuider,
    CFGStarGuider,
    LegacyAPGGuider,
    MultiModalGuider,
    STGGuider,
    guidance_at,
)
from tests.parity.vectors import Case, cases, entries

FILE = "common/guiders.safetensors"
LOGIC = "common/guider_logic.json"
GUIDERS: dict[str, Any] = {
    "CFGGuider": CFGGuider,
    "CFGStarRescalingGuider": CFGStarGuider,
    "STGGuider": STGGuider,
    "LtxAPGGuider": APGGuider,
    "LegacyStatefulAPGGuider": LegacyAPGGuider,
}
PASSES = {"uncond": "uncond", "perturbed": "ptb", "isolated": "mod"}


def with_option(name, option):
    return [param for param in cases(FILE, name) if option in param.values[0].options]


@pytest.mark.parametrize("case", with_option("*", "guider"))
def test_delta(case):
    options, inputs = case.options, case.inputs
    parameters = {k: v for k, v in options["params"].items() if v is not None}
    guider = GUIDERS[options["guider"]](**parameters)
    other = inputs["ptb" if "ptb" in options["note"] else "uncond"]
    case.assert_close(guider.delta(inputs["cond"], other), "delta")
    assert guider.enabled == options["enabled"]


@pytest.mark.parametrize("case", cases(FILE, "legacy_apg_momentum"))
def test_momentum_is_carried_over_calls(case):
    cond, uncond = case.inputs["cond"], case.inputs["uncond"]
    guider = LegacyAPGGuider(**case.options["params"])
    for call, pair in enumerate([(cond, uncond), (cond * 0.9, uncond), (cond, uncond * 1.2)]):
        case.assert_close(guider.delta(*pair), f"delta{call}")


@pytest.mark.parametrize("case", with_option("multimodal_*", "do_uncond"))
def test_multimodal_combination(case):
    inputs, options = case.inputs, case.options
    guider = MultiModalGuider(Guidance(**options["params"]))
    needed = {name: getattr(guider, f"needs_{name}") for name in PASSES}
    assert needed == {name: options[f"do_{key}"] for name, key in PASSES.items()}
    others = {name: inputs[key] for name, key in PASSES.items() if needed[name]}
    case.assert_close(guider.combine(inputs["cond"], **others), "pred")


@pytest.mark.parametrize("case", cases(FILE, "multimodal_floats"))
def test_passes_that_did_not_run_add_nothing(case):
    guider = MultiModalGuider(Guidance(**case.options["params"]))
    combined = guider.combine(case.inputs["cond"], uncond=case.inputs["uncond"])
    case.assert_close(combined, "pred")


@pytest.mark.parametrize("case", cases(FILE, "multimodal_bf16"))
def test_combination_of_bfloat16_predictions(case):
    source = case.options["inputs"].split(" ", maxsplit=1)[0]
    inputs = {name: tensor.bfloat16() for name, tensor in Case(FILE, source).inputs.items()}
    guider = MultiModalGuider(Guidance(**case.options["params"]))
    others = {name: inputs[key] for name, key in PASSES.items()}
    ulp = torch.finfo(torch.bfloat16).eps
    case.assert_close(guider.combine(inputs["cond"], **others), "pred", rtol=ulp, atol=0)


@pytest.mark.parametrize("entry", entries(LOGIC, "skip"))
def test_skipped_steps(entry):
    guider = MultiModalGuider(Guidance(skip_step=entry["skip_step"]))
    expected = entry["should_skip"]
    assert [guider.skips(step) for step in range(len(expected))] == expected


@pytest.mark.parametrize("entry", entries(LOGIC, "factory"))
def test_guidance_by_noise_level(entry):
    scales = {float(bound): scale for bound, scale in entry["bins"].items()}
    # Above all bins the reference takes the highest one; here that is the guidance around them.
    guidance = Guidance(
        cfg_scale=scales[max(scales)],
        by_sigma=tuple(GuidanceBin(up_to=b, cfg_scale=scale) for b, scale in scales.items()),
    )
    assert guidance_at(guidance, entry["sigma"]).cfg_scale == entry["cfg_scale"]
