"""Attention that is skipped on purpose, so that guidance can steer away from the result.

Letters: B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class PerturbationType(Enum):
    """What is skipped; a value names the field of ``BlockKeep`` that it clears.

    A skipped self-attention passes its values through; a skipped exchange between the streams adds
    nothing to the stream that it would have written to.
    """

    SKIP_VIDEO_SELF_ATTN = "video_self"
    SKIP_AUDIO_SELF_ATTN = "audio_self"
    SKIP_A2V_CROSS_ATTN = "audio_to_video"
    SKIP_V2A_CROSS_ATTN = "video_to_audio"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One kind of attention, skipped in some blocks.

    Attributes:
        kind: What is skipped.
        blocks: Indices of transformer blocks; ``None`` is every block.
    """

    kind: PerturbationType
    blocks: tuple[int, ...] | None = None

    def covers(self, kind: PerturbationType, block: int) -> bool:
        """Whether it skips this kind of attention in this block."""
        return self.kind is kind and (self.blocks is None or block in self.blocks)


# What is skipped for each sample of a batch, in order.
Perturbations: TypeAlias = Sequence[Sequence[Perturbation]]

# For a whole batch, or (B, 1, 1) with 1 for the samples that keep it and 0 for the others.
Keep: TypeAlias = bool | Tensor


class BlockKeep(NamedTuple):
    """Which attention one block keeps."""

    video_self: Keep = True
    audio_self: Keep = True
    audio_to_video: Keep = True
    video_to_audio: Keep = True


def block_keeps(
    perturbations: Perturbations | None, num_blocks: int, *, like: Tensor
) -> list[BlockKeep]:
    """Resolve perturbations once per forward pass, so that no block waits for the device.

    Args:
        perturbations: One sequence per sample, or ``None`` to keep everything.
        num_blocks: Blocks of the transformer.
        like: ``(B, ...)`` tensor whose batch, dtype and device the masks take.

    Returns:
        One entry per block.

    Raises:
        ValueError: If there is not one sequence per sample.
    """
    if perturbations is None:
        return [BlockKeep()] * num_blocks
    if len(perturbations) != len(like):
        raise ValueError(
            f"expected perturbations for each of {len(like)} samples, got {len(perturbations)}"
        )

    @cache
    def mask(kept: tuple[bool, ...]) -> Tensor:
        return torch.tensor(kept, dtype=like.dtype, device=like.device).view(-1, 1, 1)

    def keep(kind: PerturbationType, block: int) -> Keep:
        kept = tuple(not any(p.covers(kind, block) for p in sample) for sample in perturbations)
        return mask(kept) if any(kept) and not all(kept) else all(kept)

    return [
        BlockKeep(**{kind.value: keep(kind, block) for kind in PerturbationType})
        for block in range(num_blocks)
    ]
