"""How strongly the target and an appended item attend to each other."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rayreel.conditioning.base import ConditioningItem, extend_attention
from rayreel.diffusion.states import VideoTarget
from rayreel.types import LatentState


@dataclass(frozen=True, slots=True)
class AttentionStrength:
    """An appending item with weaker self-attention between its tokens and the target's.

    Attributes:
        item: Item that appends tokens.
        strength: In [0, 1]: one for all of its tokens, or ``(B, M)``.
    """

    item: ConditioningItem[VideoTarget]
    strength: float | Tensor

    def apply(self, state: LatentState, target: VideoTarget) -> LatentState:
        """Apply the item, and give its tokens their weights in ``attention_mask``."""
        applied = self.item.apply(replace(state, attention_mask=None), target)
        added = applied.denoise_mask[:, state.latent.shape[1] :, 0]
        weights = torch.zeros_like(added) + self.strength
        return replace(applied, attention_mask=extend_attention(state, target, weights))
