"""Noise levels to modulation: AdaLN-single.

Letters: B batch, N noise levels per sample (1, or T with one for each token), R rows, D width.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SINUSOID_WIDTH = 256


class AdaLNSingle(nn.Module):
    """Embeds noise levels and predicts R modulation rows, shared by all blocks.

    Reference:
        Chen et al. 2023, PixArt-alpha, arXiv:2310.00426.
    """

    def __init__(self, width: int, rows: int) -> None:
        """Make the layers.

        Args:
            width: D.
            rows: R.
        """
        super().__init__()
        self.rows = rows
        embedder = nn.Sequential(
            OrderedDict(
                linear_1=nn.Linear(SINUSOID_WIDTH, width),
                act=nn.SiLU(),
                linear_2=nn.Linear(width, width),
            )
        )
        # The published names are emb.timestep_embedder.linear_1 and .linear_2.
        self.emb = nn.Sequential(OrderedDict(timestep_embedder=embedder))
        self.linear = nn.Linear(width, rows * width)

    def forward(self, timesteps_BN: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Modulation of every noise level.

        Args:
            timesteps_BN: Float32 ``(B, N)``, scaled noise levels.
            dtype: Of the hidden states.

        Returns:
            Modulation ``(B, N, R, D)`` and the embedding ``(B, N, D)`` that it was made of.
        """
        embedded = self.emb(sinusoid(timesteps_BN).to(dtype))
        modulation = self.linear(F.silu(embedded)).unflatten(-1, (self.rows, -1))
        return modulation, embedded


def sinusoid(timesteps: Tensor, width: int = SINUSOID_WIDTH) -> Tensor:
    """Cosines, then sines, of scaled noise levels at geometric frequencies from 1 towards 1e-4.

    Args:
        timesteps: ``(...)``, any floating dtype.
        width: Even number of features.

    Returns:
        Float32 ``(..., width)``.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(10000) / half * steps)
    angles = timesteps.float().unsqueeze(-1) * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def rows(
    table_RD: Tensor,
    modulation_BNRD: Tensor,
    which: slice = slice(None),
    level_BT: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Rows of a learned table, each moved by its predicted modulation.

    Args:
        table_RD: ``(R, D)``, stored in float32; cast to the modulation's dtype before it is added.
        modulation_BNRD: ``(..., R, D)``.
        which: Rows; with a noise level for each token, every row is as large as the states.
        level_BT: As for ``of_tokens``.

    Returns:
        Of each row ``(..., D)``.
    """
    modulation = modulation_BNRD[..., which, :]
    moved = (table_RD[which].to(modulation.dtype) + modulation).unbind(-2)
    return tuple(of_tokens(row, level_BT) for row in moved)


def of_tokens(values_BND: Tensor, level_BT: Tensor | None) -> Tensor:
    """What follows from noise levels, for each token.

    Args:
        values_BND: ``(B, N, D)`` with N of 1 or T; or ``(1, N, D)`` to choose from.
        level_BT: ``None``, or integer ``(B, T)``: which of N levels each token is at.

    Returns:
        ``values_BND``, or the chosen ``(B, T, D)``.
    """
    return values_BND if level_BT is None else F.embedding(level_BT, values_BND[0])


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * (1 + scale) + shift``, rounded after each operation as in Lightricks/LTX-2."""
    return x * (1 + scale) + shift
