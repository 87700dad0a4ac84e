"""Context that is not part of the result: in-context LoRA videos and reference voices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rayreel.conditioning.base import append_tokens
from rayreel.diffusion.patchifiers import patchify_video, video_positions
from rayreel.diffusion.states import AudioTarget, VideoTarget
from rayreel.types import LatentState, VideoLatentShape


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceVideo:
    """A video on its own grid that covers the target's canvas and time span.

    Attributes:
        latent: ``(B, C, frames, H, W)``.
        strength: 1 keeps it exactly, 0 regenerates it.
        downscale_factor: Target pixels per reference pixel, along height and along width.
        temporal_scale: Target frames per reference frame.
    """

    latent: Tensor
    strength: float = 1.0
    downscale_factor: int = 1
    temporal_scale: int = 1

    def apply(self, state: LatentState, target: VideoTarget) -> LatentState:
        """Append its tokens at the target's scale."""
        batch, channels, frames, height, width = self.latent.shape
        shape = VideoLatentShape(
            batch=batch, channels=channels, frames=frames, height=height, width=width
        )
        positions = video_positions(
            shape, fps=target.fps / self.temporal_scale, factors=target.factors
        )
        positions[:, 1:] *= self.downscale_factor
        # A reference frame stands for the last target frame of its span, so the first one for one.
        lead = (self.temporal_scale - 1) / target.fps
        positions[:, 0] = (positions[:, 0] - lead).clamp(min=0)
        tokens = patchify_video(self.latent)
        return append_tokens(
            state,
            target,
            latent=torch.zeros_like(tokens),
            clean_latent=tokens,
            positions=positions,
            denoise=1 - self.strength,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceAudio:
    """Sound that the target should resemble.

    Attributes:
        tokens: Patchified latent ``(B, M, D)``.
        positions: Where it lies in time, seconds ``(B, 1, M, 2)``.
        strength: 1 keeps it exactly, 0 regenerates it.
    """

    tokens: Tensor
    positions: Tensor
    strength: float = 1.0

    def apply(self, state: LatentState, target: AudioTarget) -> LatentState:
        """Append its tokens."""
        return append_tokens(
            state,
            target,
            latent=torch.zeros_like(self.tokens),
            clean_latent=self.tokens,
            positions=self.positions,
            denoise=1 - self.strength,
        )
