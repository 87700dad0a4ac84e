"""Rotary position embedding over one or several axes, in both published layouts.

Letters: B batch, A axes, T tokens, N frequencies per axis, D width, H heads, K head width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Layout = Literal["split", "interleaved"]


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Cosine and sine of every rotation.

    Attributes:
        cos: Split layout: ``(B, H, T, K/2)``, channel j of a head turns with channel ``j + K/2``.
            Interleaved layout: ``(B, T, D)``, channel 2j turns with channel ``2j + 1``.
        sin: Like ``cos``.
        layout: Which of the two it is.
    """

    cos: Tensor
    sin: Tensor
    layout: Layout


def rotary_table(
    positions: Tensor,
    *,
    dim: int,
    heads: int,
    max_pos: Sequence[float],
    theta: float,
    layout: Layout,
    float64_frequencies: bool,
    dtype: torch.dtype = torch.float32,
) -> RotaryTable:
    """Table for tokens that lie at real-valued positions along each axis.

    A position is a fraction of ``max_pos``, mapped to [-1, 1] and multiplied by frequencies from
    ``pi / 2`` to ``theta * pi / 2``. Angles reach 1.5e4, so their rounding shows: they are formed
    in float32, as for the published models, and a more exact product would be a different table.

    Args:
        positions: ``(B, A, T, 2)`` start and end of each token, whose midpoint is used, or
            ``(B, A, T)`` as they are.
        dim: D, width of what is rotated, shared out over axes and frequencies; what remains, at the
            front, is not rotated.
        heads: H.
        max_pos: Position of fraction 1 along each axis.
        theta: Ratio of the highest to the lowest frequency.
        layout: Which channels form a pair.
        float64_frequencies: Form the frequencies in float64 before they are rounded to float32.
        dtype: What the finished table is cast to.

    Returns:
        The table, on the device of ``positions``.

    Reference:
        Su et al. 2021, arXiv:2104.09864; the grid follows Lightricks/LTX-2.
    """
    if positions.dim() == 4:
        positions = positions.float().mean(dim=-1)
    axes = positions.shape[1]
    frequencies = _frequencies(dim // (2 * axes), theta, float64_frequencies, positions.device)
    extent = torch.tensor(max_pos, dtype=torch.float32, device=positions.device)
    signed_BTA = 2 * (positions.float().transpose(1, 2) / extent) - 1
    # Frequency-major, axis-minor: t0 h0 w0 t1 h1 w1 ...
    angles = (frequencies[:, None] * signed_BTA[:, :, None, :]).flatten(2)
    angles = F.pad(angles, (dim // 2 - angles.shape[-1], 0))
    if layout == "split":
        angles = torch.unflatten(angles, -1, (heads, -1)).transpose(1, 2)
    else:
        angles = angles.repeat_interleave(2, dim=-1)
    return RotaryTable(angles.cos().to(dtype), angles.sin().to(dtype), layout)


def apply_rotary(x_BTD: Tensor, table: RotaryTable) -> Tensor:
    """Rotate queries or keys.

    In bfloat16 the split layout rounds one product, then once more after a fused multiply-add; the
    interleaved layout rounds both products and their sum, as in Lightricks/LTX-2.

    Args:
        x_BTD: ``(B, T, D)``, heads side by side.
        table: Table of the same tokens and dtype; its batch may be 1.

    Returns:
        Shape and dtype of ``x_BTD``.
    """
    if table.layout == "interleaved":
        even, odd = torch.unflatten(x_BTD, -1, (-1, 2)).unbind(-1)
        return x_BTD * table.cos + torch.stack((-odd, even), dim=-1).flatten(-2) * table.sin
    cos, sin = table.cos.transpose(1, 2), table.sin.transpose(1, 2)
    halves = torch.unflatten(x_BTD, -1, (cos.shape[2], 2, -1))
    first, second = halves.unbind(-2)
    # In place, as both halves beside their result would be the most memory that attention takes.
    rotated = halves * cos.unsqueeze(-2)
    rotated[..., 0, :].addcmul_(second, sin, value=-1)
    rotated[..., 1, :].addcmul_(first, sin)
    return rotated.flatten(-3)


@lru_cache(maxsize=32)
def _frequencies(count: int, theta: float, float64: bool, device: torch.device) -> Tensor:
    """Float32 ``(N,)``, geometric from ``pi / 2`` to ``theta * pi / 2``; formed on the CPU."""
    dtype = torch.float64 if float64 else torch.float32
    exponents = torch.linspace(0, 1, count, dtype=dtype, device="cpu")
    return (theta**exponents * (math.pi / 2)).to(device=device, dtype=torch.float32)
