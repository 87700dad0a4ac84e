"""Feed-forward step of a transformer block.

Letters: B batch, T tokens, D width.
"""

from collections import OrderedDict

from torch import Tensor, nn


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
        return self.net(x_BTD)
