"""LoRA fusion against the golden vectors."""

from pathlib import PurePosixPath

import pytest
import torch

from rayreel.checkpoints.keys import TRANSFORMER, component_tensors
from rayreel.checkpoints.lora import Adapter, fuse
from tests.parity.vectors import Case, cases, weights

FUSED = {"bf16": (torch.bfloat16, torch.bfloat16), "f32base": (torch.float32, torch.bfloat16)}
EXACT = (torch.float32, torch.float64)


def _fused(case: Case, stored: torch.dtype, aggregate: torch.dtype):
    folder = PurePosixPath(case.file).parent
    base = component_tensors(weights(f"{folder}/model.safetensors"), TRANSFORMER)
    adapters = [
        Adapter(weights(f"{folder}/{file}"), strength) for file, strength in case.options["loras"]
    ]
    touched = {name: base[name].to(stored) for name in case.out}
    return fuse(touched, adapters, aggregate_dtype=aggregate)


@pytest.mark.parametrize(
    "case",
    cases("*/lora_fusion.safetensors", "bf16_*") + cases("*/lora_fusion.safetensors", "f32base_*"),
)
def test_fused_weights_are_equal_to_the_bit(case: Case) -> None:
    fused = _fused(case, *FUSED[case.name.split("_")[0]])
    for name in case.out:
        torch.testing.assert_close(fused[name], case.out[name], rtol=0, atol=0)


@pytest.mark.parametrize("case", cases("*/lora_fusion.safetensors", "exact_*"))
def test_fusion_at_full_precision_is_exact(case: Case) -> None:
    fused = _fused(case, *EXACT)
    for name in case.out:
        torch.testing.assert_close(fused[name], case.out[name], rtol=1e-6, atol=1e-9)
