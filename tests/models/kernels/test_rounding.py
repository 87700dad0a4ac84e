"""Stochastic rounding: the numbers behind it, the formula, and its kernel."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rayreel.models.kernels import rounding
from rayreel.models.kernels.philox import uniforms
from rayreel.models.kernels.rounding import FORMATS, fused_add_round_, fused_add_round_in_torch_
from rayreel.types import seeded_generator

E4M3, E5M2 = FORMATS
HERE = Path(__file__).parent

# Odd, so that the last block is not full; every code meets every delta.
DELTAS = torch.tensor(
    [0.0, -0.0, 1e-8, 3e-4, -2e-3, 0.05, -0.3, 1.0, 250.0, -7e4, float("inf"), float("nan"), 1e-40]
).bfloat16()
CODES = torch.arange(256, dtype=torch.uint8)


def every_pair():
    """Codes of every weight beside every delta, and each weight beside random deltas."""
    noise = torch.randn(256 * 4 + 1, generator=seeded_generator(0, "deltas")) / 50
    delta = torch.cat((DELTAS.repeat_interleave(256), noise.bfloat16()))
    return CODES.repeat(len(DELTAS) + 5)[: len(delta)], delta


def bits(result: torch.Tensor) -> torch.Tensor:
    """What must be equal; a NaN is a NaN."""
    return torch.where(result.isnan(), 0x7FC0, result.view(torch.int16))


def test_numbers_of_known_keys_and_counters():
    # The first words of Philox 4x32-10 for counters of 0 and key 0 (Random123, kat_vectors).
    assert uniforms(0, 0, 1).item() == pytest.approx(0x6627E8D5 / 2**31, abs=1e-7)
    drawn = uniforms(0, 0, 200_000)
    assert 0 <= drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=2e-3)


def test_numbers_follow_from_seed_and_index_alone():
    whole = uniforms(7, 0, 1000)
    assert torch.equal(whole[300:700], uniforms(7, 300, 700))
    assert not torch.equal(whole, uniforms(8, 0, 1000))
    assert not torch.equal(whole, uniforms(7 + 2**32, 0, 1000))


@pytest.mark.parametrize(
    ("weight", "delta", "number", "dithered", "rounded"),
    [
        (1.0, 0.05, 0.0, 0.98828125, 1.0),
        (1.0, 0.05, 0.999, 1.109375, 1.125),
        # Below the normal numbers the step stays 2 ** -9.
        (2**-9, 0.0003, 0.0, 0.00127410888671875, 2**-9),
        (2**-9, 0.0003, 0.999, 0.0032196044921875, 2**-8),
        (1.0, -1.0, 0.999, 0.0, 0.0),
    ],
)
def test_noise_is_half_a_step_either_way(monkeypatch, weight, delta, number, dithered, rounded):
    monkeypatch.setattr(rounding, "uniforms", lambda *_, **__: torch.tensor([number]))
    result = torch.tensor([delta]).bfloat16()
    fused_add_round_(result, torch.tensor([weight]).to(E4M3))
    assert result.item() == dithered
    assert result.to(E4M3).item() == rounded


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_change_of_less_than_a_step_is_kept_on_average(dtype):
    # Not beside a power of two, where the steps below are smaller than those above.
    weight = torch.full((100_000,), 1.5).to(dtype)
    delta = torch.full(weight.shape, 0.03125, dtype=torch.bfloat16)
    assert torch.equal((weight.bfloat16() + delta).to(dtype).float(), weight.float())
    # What lies between neighbours in bfloat16 goes to even ones, which takes a little of it away.
    mean = fused_add_round_(delta, weight).to(dtype).float().mean().item()
    assert mean == pytest.approx(1.53125, abs=5e-3)


def test_large_weights_are_done_in_parts_with_the_same_result(monkeypatch):
    codes, delta = every_pair()
    whole = fused_add_round_(delta.clone(), codes.view(E4M3))
    monkeypatch.setattr(rounding, "_CHUNK", 1000)
    assert torch.equal(bits(whole), bits(fused_add_round_(delta.clone(), codes.view(E4M3))))


def test_without_triton_it_says_so_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "rayreel.models.kernels.rounding_triton", raising=False)
    rounding._kernel.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert rounding._kernel() is None
        assert rounding._kernel() is None
    rounding._kernel.cache_clear()
    assert caplog.text.count("rounded in PyTorch, without a kernel") == 1


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Results of the kernel in Triton's interpreter, by dtype."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("interpreted")
    given, results = folder / "given.safetensors", folder / "results.safetensors"
    codes, delta = every_pair()
    names = [str(dtype).removeprefix("torch.") for dtype in FORMATS]
    save_file({"weight": codes} | {name: delta.clone() for name in names}, given)
    subprocess.run(
        [sys.executable, HERE / "interpreted.py", given, results],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    return load_file(results)


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_interpreted_kernel_is_equal_to_pytorch_to_the_bit(interpreted, dtype):
    codes, delta = every_pair()
    fused_add_round_in_torch_(delta, codes.view(dtype), 0)
    result = interpreted[str(dtype).removeprefix("torch.")]
    assert result.isfinite().sum() > len(result) // 2
    assert torch.equal(bits(result), bits(delta))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("capability", [75, 90])
def test_the_kernel_compiles_for_devices_that_are_not_here(
    monkeypatch, tmp_path, dtype, capability
):
    triton = pytest.importorskip("triton")
    backends = pytest.importorskip("triton.backends.compiler")
    from rayreel.models.kernels.rounding_triton import _KERNEL  # noqa: PLC0415 - needs Triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    bias, mantissa = FORMATS[dtype]
    pointers = {"delta_pointer": "*i16", "weight_pointer": "*u8", "count": "i32", "seed": "i32"}
    constants = {"bias": bias, "mantissa": mantissa, "block": 1024}
    source = triton.compiler.ASTSource(
        fn=_KERNEL,
        signature=pointers | dict.fromkeys(constants, "constexpr"),
        constexprs={(4 + i,): value for i, value in enumerate(constants.values())},
    )
    target = backends.GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False})
    assert "fma" not in compiled.asm["ptx"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("repeats", [1, 300])
def test_the_compiled_kernel_is_equal_to_pytorch_to_the_bit(dtype, repeats):
    pytest.importorskip("triton")
    codes, delta = (tensor.repeat(repeats) for tensor in every_pair())
    assert rounding._kernel() is not None
    on_device = fused_add_round_(delta.cuda(), codes.view(dtype).cuda())
    in_torch = delta.cuda()
    fused_add_round_in_torch_(in_torch, codes.view(dtype).cuda(), 0)
    fused_add_round_in_torch_(delta, codes.view(dtype), 0)
    assert torch.equal(bits(on_device.cpu()), bits(delta))
    assert torch.equal(bits(in_torch.cpu()), bits(delta))
