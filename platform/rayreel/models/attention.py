"""Multi-head attention of the transformer and of the text connectors.

Letters: B batch, T query tokens, S context tokens, D width, H heads, K head width.
"""

import torch
from torch import Tensor, nn

from rayreel.models.attention_backends import SELECTION, Call
from rayreel.models.rope import RotaryTable, apply_rotary


def scaled_dot_product(
    q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, mask: Tensor | None
) -> Tensor:
    """Softmax attention with scale ``1 / sqrt(K)``, by the kernel that fits the call.

    Args:
        q_BTHK: Queries ``(B, T, H, K)``.
        k_BSHK: Keys ``(B, S, H, K)``.
        v_BSHK: Values ``(B, S, H, K)``.
        mask: ``None``, or an additive bias in their dtype that broadcasts to ``(B, H, T, S)``.

    Returns:
        ``(B, T, H, K)``.

    Raises:
        ValueError: If a forced back end cannot serve the call.
    """
    call = Call(v_BSHK.device, v_BSHK.dtype, v_BSHK.shape[-1], mask is not None)
    return SELECTION.kernel(call)(q_BTHK, k_BSHK, v_BSHK, mask)


class Attention(nn.Module):
    """Self- or cross-attention with normalised queries and keys, and optionally gated heads."""

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        *,
        heads: int,
        head_dim: int,
        eps: float,
        gated: bool = False,
    ) -> None:
        """Make the projections.

        Args:
            query_dim: D of the queries' input, and of the output.
            context_dim: Width of what keys and values are made of.
            heads: H.
            head_dim: K.
            eps: Of the norms of queries and keys.
            gated: Whether each head's result is scaled by a gate computed from the queries' input.
        """
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        # The norms span all heads together, not each head.
        self.q_norm = nn.RMSNorm(inner, eps=eps)
        self.k_norm = nn.RMSNorm(inner, eps=eps)
        self.to_q = nn.Linear(query_dim, inner)
        self.to_k = nn.Linear(context_dim, inner)
        self.to_v = nn.Linear(context_dim, inner)
        self.to_out = nn.Sequential(nn.Linear(inner, query_dim))
        self.to_gate_logits = nn.Linear(query_dim, heads) if gated else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        rope: RotaryTable | None = None,
        context_rope: RotaryTable | None = None,
        keep: Tensor | bool = True,
    ) -> Tensor:
        """Attend from ``x`` to ``context``.

        Args:
            x: Queries' input ``(B, T, D)``.
            context: Keys' and values' input ``(B, S, C)``; ``None`` is self-attention.
            mask: Additive bias that broadcasts to ``(B, H, T, S)``.
            rope: Rotary table of the queries, and of the keys unless they have their own.
            context_rope: Rotary table of the keys.
            keep: Spatio-temporal guidance, self-attention only: ``False`` passes the values through
                in place of attending; ``(B, 1, 1)`` does so for the samples where it is 0.

        Returns:
            ``(B, T, D)``.
        """
        context = x if context is None else context
        v = self.to_v(context)
        if keep is False:
            out = v
        else:
            q, k = self.q_norm(self.to_q(x)), self.k_norm(self.to_k(context))
            if rope is not None:
                q = apply_rotary(q, rope)
                k = apply_rotary(k, rope if context_rope is None else context_rope)
            q_BTHK, k_BSHK, v_BSHK = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))
            out = scaled_dot_product(q_BTHK, k_BSHK, v_BSHK, mask).flatten(-2)
            # Names would keep them, to the end of the output projection.
            del q, k, q_BTHK, k_BSHK, v_BSHK
            if isinstance(keep, Tensor):
                out = torch.where(keep > 0, out, v)
        del v
        if self.to_gate_logits is not None:
            # Twice a sigmoid: a gate with zero logits changes nothing.
            gates_BTH1 = 2 * torch.sigmoid(self.to_gate_logits(x)).unsqueeze(-1)
            out = (out.unflatten(-1, (self.heads, -1)) * gates_BTH1).flatten(-2)
        return self.to_out(out)
