"""``fused_add_round_`` as a Triton kernel; needs Triton to be imported."""

import torch
import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]
from torch import Tensor

from rayreel.models.kernels.rounding import FORMATS

_BLOCK = 1024


def fused_add_round_(delta: Tensor, weight: Tensor, seed: int) -> None:
    """Launch the kernel; see ``rayreel.models.kernels.rounding``."""
    bias, mantissa = FORMATS[weight.dtype]
    grid = (triton.cdiv(delta.numel(), _BLOCK),)
    with torch.cuda.device_of(delta):  # type: ignore[no-untyped-call]
        _KERNEL[grid](
            delta.view(torch.int16),
            weight.view(torch.uint8),
            delta.numel(),
            seed,
            bias=bias,
            mantissa=mantissa,
            block=_BLOCK,
            # PyTorch rounds the noise before it takes a half from it.
            enable_fp_fusion=False,
        )


def _fused_add_round(
    delta_pointer: tl.tensor,
    weight_pointer: tl.tensor,
    count: tl.tensor,
    seed: tl.tensor,
    bias: tl.constexpr,
    mantissa: tl.constexpr,
    block: tl.constexpr,
) -> None:
    # Float8 and bfloat16 are read and written as their bits: not every device has these types, and
    # Triton's interpreter gets their conversions wrong.
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < count
    code = tl.load(weight_pointer + index, mask=inside, other=0).to(tl.int32)
    if mantissa == 2:
        # The upper byte of a float16.
        weight = (code << 8).to(tl.int16).to(tl.float16, bitcast=True)
    else:
        # A float16 of the same fields, whose exponents are 8 lower.
        bits = ((code & 0x80) << 8) | ((code & 0x7F) << 7)
        weight = bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) * 256
        weight = tl.where((code & 0x7F) == 0x7F, float("nan"), weight).to(tl.float16)
    bits = tl.load(delta_pointer + index, mask=inside, other=0).to(tl.int32) << 16
    total = weight + bits.to(tl.float32, bitcast=True).to(tl.float16)

    # The distance between float8 neighbours, put together as a float16 without mantissa.
    field = tl.maximum((total.to(tl.int16, bitcast=True).to(tl.int32) >> 10) & 31, 1)
    exponent = tl.minimum(tl.maximum(field - 15 + bias, 0), 2 * bias + 1)
    step = tl.where(exponent > 0, exponent - bias - mantissa + 15, 16 - bias - mantissa)
    step = tl.minimum(tl.maximum(step, 0), 31) << 10
    step = step.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    step = tl.where(total == 0, 0.0, step)

    result = total.to(tl.float32) + (tl.rand(seed, index) - 0.5) * step
    # To the nearest bfloat16, ties to even; a NaN must not carry into the exponent.
    bits = result.to(tl.int32, bitcast=True)
    number = (bits & 0x7FFFFFFF) <= 0x7F800000
    rounded = tl.where(number, bits + 0x7FFF + ((bits >> 16) & 1), bits)
    tl.store(delta_pointer + index, (rounded >> 16).to(tl.int16), mask=inside)


_KERNEL = triton.jit(_fused_add_round)
