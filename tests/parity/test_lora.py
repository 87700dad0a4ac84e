"""LoRA fusion against the golden vectors."""

from pathlib import PurePosixPath
from typing import Any

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.keys import TRANSFORMER, component_tensors
from rayreel.checkpoints.lora import Adapter, fuse
from rayreel.config.model import TransformerConfig
from rayreel.models.transformer import Transformer
from rayreel.types import Modality
from tests.parity.vectors import Case, cases, float32, weights

FUSED = {"bf16": (torch.bfloat16, torch.bfloat16), "f32base": (torch.float32, torch.bfloat16)}
EXACT = (torch.float32, torch.float64)


def forwards(pattern: str):
    """Cases that run the transformer; weights kept in float8 are another matter."""
    return [p for p in cases(pattern, "forward_*") if "fp8" not in p.values[0].name]


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


@pytest.mark.parametrize("case", forwards("*/lora_fusion.safetensors"))
@torch.inference_mode()
def test_a_model_with_fused_weights_predicts_the_same(case: Case) -> None:
    checkpoint = weights(f"{case.folder}/model.safetensors")
    base = component_tensors(checkpoint, TRANSFORMER)
    adapters = [
        Adapter(weights(f"{case.folder}/{file}"), strength)
        for file, strength in case.options.get("loras", ())
    ]
    config = checkpoint.section("transformer", TransformerConfig)
    model = build(lambda: Transformer(config), float32(fuse(base, adapters)))
    given = Case(case.file, "inputs").inputs

    def modality(stream: str) -> Modality:
        fields: dict[str, Any] = {
            name.removeprefix(f"{stream}_"): value
            for name, value in given.items()
            if name.startswith(f"{stream}_")
        }
        return Modality(**fields)

    streams = modality("video"), modality("audio")
    for stream, velocity in zip(("video", "audio"), model(*streams), strict=True):
        if f"{stream}_velocity" in case.out:
            case.assert_close(velocity, f"{stream}_velocity", rtol=1e-4, atol=1e-4)
