"""Normalisation without learned weights."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square over the last axis.

    Computed in float32 and rounded once, so a bfloat16 input loses nothing on the way.

    Args:
        x: ``(..., D)``, any floating dtype.
        eps: Added to the mean square.

    Returns:
        Shape and dtype of ``x``.

    Reference:
        Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    return F.rms_norm(x, x.shape[-1:], eps=eps)
