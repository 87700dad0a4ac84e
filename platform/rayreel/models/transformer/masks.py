"""Masks as callers give them, as additive attention bias.

Letters: B batch, T tokens, L text tokens.
"""

import torch
from torch import Tensor


def context_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Bias of a text attention.

    Args:
        mask: ``None``; integer or bool ``(B, L)`` with 1 for valid tokens; or a floating-point
            bias ``(B, 1, 1, L)``, which is used as it is.
        dtype: Of the hidden states.

    Returns:
        ``None`` or ``(B, 1, 1, L)``; from a mask, 0 for valid tokens and the lowest finite value
        for the others.
    """
    if mask is None:
        return None
    if mask.is_floating_point():
        return mask.to(dtype)
    return (mask[:, None, None, :].to(dtype) - 1) * torch.finfo(dtype).max


def strength_bias(strengths: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Bias of a self-attention whose unnormalised weights are multiplied by strengths.

    Args:
        strengths: ``None``, or values in [0, 1] that broadcast to ``(B, T, T)``.
        dtype: Of the hidden states.

    Returns:
        ``None`` or the logarithm ``(B, 1, T, T)``, with the lowest finite value for strength 0.
    """
    if strengths is None:
        return None
    limits = torch.finfo(dtype)
    logarithm = strengths.clamp(min=limits.tiny).log()
    return logarithm.masked_fill(strengths <= 0, limits.min).to(dtype).unsqueeze(1)
