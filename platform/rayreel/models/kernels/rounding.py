"""Adding to float8 weights with stochastic rounding.

The sum of a float8 weight and a small change mostly rounds back to the weight. Dither of half a
step either way before the rounding keeps the change on average.
"""

import logging
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from rayreel.models.kernels.philox import uniforms

log = logging.getLogger(__name__)

# Exponent bias and bits of the mantissa.
FORMATS = {torch.float8_e4m3fn: (7, 3), torch.float8_e5m2: (15, 2)}

# Elements at a time in PyTorch: the temporary tensors, 8 bytes for each, shall stay in the cache.
_CHUNK = 2**18


def fused_add_round_(delta: Tensor, weight: Tensor, *, seed: int = 0) -> Tensor:
    """Add float8 weights to a buffer, and noise of up to half a float8 step.

    Rounded to float8 the result is the sum, stochastically rounded. On CUDA a kernel does it in one
    pass; elsewhere, and without Triton, PyTorch does: to the bit the same.

    Args:
        delta: Contiguous bfloat16 buffer, overwritten by the result.
        weight: ``float8_e4m3fn`` or ``float8_e5m2``, contiguous, of the same shape and device, with
            fewer than ``2 ** 31`` elements.
        seed: Of the noise, which follows from it and the flat index.

    Returns:
        ``delta``.
    """
    kernel = _kernel() if delta.is_cuda else None
    add = fused_add_round_in_torch_ if kernel is None else kernel.fused_add_round_
    add(delta, weight, seed)
    return delta


@cache
def _kernel() -> ModuleType | None:
    try:
        from rayreel.models.kernels import rounding_triton  # noqa: PLC0415 - Triton is optional
    except ImportError as error:
        log.warning("float8 weights are rounded in PyTorch, without a kernel: %s", error)
        return None
    return rounding_triton


def fused_add_round_in_torch_(delta: Tensor, weight: Tensor, seed: int) -> None:
    """``fused_add_round_`` in PyTorch, on any device."""
    bias, mantissa = FORMATS[weight.dtype]
    flat, weights = delta.view(-1), weight.view(-1)
    for start in range(0, len(flat), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        sums = weights[start : start + _CHUNK].half() + chunk.half()
        noise = uniforms(seed, start, start + len(chunk), device=delta.device) - 0.5
        chunk.copy_(sums.float() + noise * _steps(sums, bias, mantissa))


def _steps(sums: Tensor, bias: int, mantissa: int) -> Tensor:
    """Distance between float8 neighbours at float16 values, as float32."""
    # Above 10 bits of mantissa a float16 has 5 of exponent, where 0 stands for -14 as 1 does.
    field = (sums.view(torch.int16).int() >> 10 & 31).clamp(min=1)
    exponent = (field - 15 + bias).clamp(0, 2 * bias + 1)
    # Steps are float16 numbers without mantissa; those too small to be one are none.
    step = torch.where(exponent > 0, exponent - bias - mantissa + 15, 16 - bias - mantissa)
    steps = (step.clamp(0, 31) << 10).short().view(torch.float16).float()
    return torch.where(sums == 0, 0.0, steps)
