"""LoRA fusion against the golden vectors."""

from pathlib import PurePosixPath
from typing import Any

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.keys import TRANSFORMER, component_tensors
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.quantization import cast_to_fp8, quantize, quantize_per_tensor
from rayreel.config.model import TransformerConfig
from rayreel.models.transformer import Transformer
from rayreel.types import Modality
from tests.fusing import fuse
from tests.parity.vectors import Case, cases, weights

E4M3 = torch.float8_e4m3fn
FUSED = {"bf16": (torch.bfloat16, torch.bfloat16), "f32base": (torch.float32, torch.bfloat16)}
EXACT = (torch.float32, torch.float64)


def _base(case: Case):
    folder = PurePosixPath(case.file).parent
    return component_tensors(weights(f"{folder}/model.safetensors"), TRANSFORMER)


def _adapters(case: Case) -> list[Adapter]:
    folder = PurePosixPath(case.file).parent
    return [
        Adapter(weights(f"{folder}/{file}"), strength)
        for file, strength in case.options.get("loras", ())
    ]


def _fused(case: Case, stored: torch.dtype, aggregate: torch.dtype):
    base = _base(case)
    touched = {name: base[name].to(stored) for name in case.out}
    return fuse(touched, _adapters(case), aggregate_dtype=aggregate)


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


@pytest.mark.parametrize("case", cases("*/lora_fusion.safetensors", "fp8_cast_keys"))
def test_the_cast_to_float8_takes_the_same_weights(case: Case) -> None:
    cast = cast_to_fp8(_base(case))
    assert sorted(name for name in cast if cast[name].dtype == E4M3) == case.options["fp8_keys"]


@pytest.mark.parametrize("case", cases("*/lora_fusion.safetensors", "fp8cast_*"))
def test_weights_fused_in_float8_have_the_same_bytes(case: Case) -> None:
    fused = fuse(cast_to_fp8(_base(case)), _adapters(case))
    for name, expected in case.out.items():
        ours = fused[name].view(torch.uint8) if expected.dtype == torch.uint8 else fused[name]
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", cases("*/lora_fusion.safetensors", "fp8_scaled_quantize"))
def test_scaled_float8_has_the_same_bytes_and_scale(case: Case) -> None:
    values, scale = quantize_per_tensor(_base(case)[case.options["key"]].float(), E4M3)
    assert torch.equal(values.view(torch.uint8), case.out["q_bytes"])
    assert torch.equal(scale, case.out["weight_scale"])


@pytest.mark.parametrize("case", cases("*/lora_fusion.safetensors", "fp8_scaled_fuse_*"))
def test_weights_fused_in_scaled_float8_have_the_same_bytes_and_scale(case: Case) -> None:
    key, given = case.options["key"], case.inputs
    scaled = {
        key: given["q_bytes"].view(E4M3),
        f"{key}_scale": given["weight_scale"],
    }
    # Its options do not name the adapter; its name says strength 1 of the first.
    adapter = Adapter(weights(f"{case.folder}/lora_a.safetensors"), 1.0)
    fused = fuse(scaled, [adapter])
    assert torch.equal(fused[key].view(torch.uint8), case.out["q_bytes"])
    assert torch.equal(fused[f"{key}_scale"], case.out["weight_scale"])


@pytest.mark.parametrize("case", cases("*/lora_fusion.safetensors", "forward_*"))
@torch.inference_mode()
def test_a_model_with_fused_weights_predicts_the_same(case: Case) -> None:
    config = weights(f"{case.folder}/model.safetensors").section("transformer", TransformerConfig)
    base = quantize(_base(case), "fp8_cast" if case.name.endswith("fp8cast") else "auto")
    fused = fuse(base, _adapters(case))
    model = build(lambda: Transformer(config), fused, dtype=torch.float32)
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
