"""Regions of the target that are kept or generated, without new tokens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rayreel.diffusion.patchifiers import patchify_video
from rayreel.diffusion.states import Target, VideoTarget, frozen
from rayreel.types import LatentState


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentMask:
    """Content for the masked part of the target.

    Attributes:
        latent: ``(B, C, F, H, W)``, of the target's shape.
        mask: ``(B, F, H, W)`` in [0, 1]: 1 takes the content, 0 leaves the target.
        strength: 1 keeps the content exactly, 0 regenerates it.
    """

    latent: Tensor
    mask: Tensor
    strength: float = 1.0

    def apply(self, state: LatentState, target: VideoTarget) -> LatentState:
        """Blend clean content and denoise mask by the mask."""
        taken = patchify_video(self.mask[:, None]).to(state.denoise_mask)
        content = patchify_video(self.latent).to(state.clean_latent)
        clean, mask = state.clean_latent.clone(), state.denoise_mask.clone()
        clean[:, : target.tokens] = torch.lerp(
            clean[:, : target.tokens].float(), content.float(), taken
        ).to(clean)
        mask[:, : target.tokens] += taken * (1 - self.strength - mask[:, : target.tokens])
        return replace(state, clean_latent=clean, denoise_mask=mask)


@dataclass(frozen=True, slots=True)
class TemporalRegion:
    """Generates a stretch of the target again and keeps the rest of it.

    Attributes:
        start_s: Start of the stretch in seconds.
        end_s: End of the stretch in seconds; tokens that only touch it are kept.
    """

    start_s: float
    end_s: float

    def apply(self, state: LatentState, target: Target) -> LatentState:
        """Set the target's denoise mask."""
        start, end = state.positions[:, 0, : target.tokens].unbind(-1)
        mask = state.denoise_mask.clone()
        inside = (end > self.start_s) & (start < self.end_s)
        mask[:, : target.tokens] = inside[..., None].to(mask)
        return replace(state, denoise_mask=mask)


@dataclass(frozen=True, slots=True)
class Frozen:
    """Keeps the whole stream: it only serves as context for the other one."""

    def apply(self, state: LatentState, target: Target) -> LatentState:  # noqa: ARG002 - as others
        """Set the denoise mask to 0."""
        return frozen(state)
