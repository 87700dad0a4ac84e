"""Feed-forward step of a transformer block.

Letters: B batch, T tokens, D width.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

CHUNK = 8192
"""Tokens at once where no gradients are kept: the four times as wide activations of more would be
the peak of the network, while products of this many keep a GPU busy. Products of another number of
rows may be rounded differently, so shorter sequences stay whole."""


class FeedForward(nn.Module):
    """Linear, GELU (tanh approximation), linear; four times as wide inside."""

    def __init__(self, width: int, *, bias: bool = True) -> None:
        """Make the layers.

        Args:
            width: D of input and output.
            bias: Whether both linear layers have one.
        """
        super().__init__()
        hidden = 4 * width
        # The published names are net.0.proj and net.2, hence the nested container.
        self.net = nn.Sequential(
            nn.Sequential(OrderedDict(proj=nn.Linear(width, hidden, bias=bias))),
            nn.GELU(approximate="tanh"),
            nn.Linear(hidden, width, bias=bias),
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """``(B, T, D)`` to the same shape."""
        num_tokens = x_BTD.shape[:-1].numel()
        if torch.is_grad_enabled() or num_tokens <= CHUNK:
            return self.net(x_BTD)
        out_BTD = torch.empty_like(x_BTD, memory_format=torch.contiguous_format)
        num_chunks = -(-num_tokens // CHUNK)
        chunks = (tensor.flatten(0, -2).chunk(num_chunks) for tensor in (x_BTD, out_BTD))
        for tokens, out in zip(*chunks, strict=True):
            out.copy_(self.net(tokens))
        return out_BTD
