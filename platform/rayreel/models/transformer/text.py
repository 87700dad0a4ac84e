"""Attention to the text, which is the same at every step of a run.

Letters: B batch, T tokens, L text tokens, D width of a stream, H heads, K head width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rayreel.models.attention import Attention, scaled_dot_product

MOST_BYTES = 2**29
"""What is kept of the text in one run, at most.

All that two texts are to the published 2.0 network takes 2.4 GB, and saves a twelfth of the time of
a short, small clip; of tiny networks, a third.
"""

Key = tuple[str, int]
"""What it is, and of which block."""


@dataclass(slots=True)
class TextMemory:
    """What the transformer made of the text in an earlier step.

    Whoever passes it on sees to it that text, batch and weights stay the same.

    Attributes:
        most_bytes: Once they are reached, nothing more is kept: it is made anew at every step.
    """

    most_bytes: int = MOST_BYTES
    _kept: dict[Key, tuple[Tensor, ...]] = field(default_factory=dict, init=False, repr=False)
    _bytes: int = field(default=0, init=False, repr=False)

    def recall(self, key: Key, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What is kept under a name, or what ``make`` gives, which then is kept."""
        kept = self._kept.get(key)
        if kept is None:
            kept = make()
            size = sum(tensor.nbytes for tensor in kept)
            if self._bytes + size <= self.most_bytes:
                self._kept[key] = kept
                self._bytes += size
        return kept


def keys_values(attention: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of a text.

    Args:
        attention: Of a stream to its text.
        context: Text ``(B, L, D)``.

    Returns:
        Both ``(B, L, H, K)``.
    """
    keys = attention.k_norm(attention.to_k(context))
    heads = (attention.heads, -1)
    return keys.unflatten(-1, heads), attention.to_v(context).unflatten(-1, heads)


def attend(
    attention: Attention, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Tensor:
    """Attend from a stream to the text.

    Args:
        attention: Of a stream to its text.
        x: Queries' input ``(B, T, D)``.
        keys: ``(B, L, H, K)``.
        values: Like ``keys``.
        mask: Additive bias that broadcasts to ``(B, H, T, L)``.

    Returns:
        ``(B, T, D)``.
    """
    queries = attention.q_norm(attention.to_q(x)).unflatten(-1, (attention.heads, -1))
    out = scaled_dot_product(queries, keys, values, mask)
    del queries
    if attention.to_gate_logits is not None:
        out = out * (2 * torch.sigmoid(attention.to_gate_logits(x)).unsqueeze(-1))
    return attention.to_out(out.flatten(-2))
