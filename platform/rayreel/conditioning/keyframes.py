"""Frames pinned in time by appended tokens: given ones, and ones to be generated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from rayreel.conditioning.base import append_tokens
from rayreel.diffusion.patchifiers import patchify_video, unpatchify_video, video_positions
from rayreel.diffusion.states import VideoTarget
from rayreel.errors import ItemError
from rayreel.types import LatentState, VideoLatentShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """An image or a short clip that the video passes through at a point in time.

    Attributes:
        latent: ``(B, C, frames, H, W)`` at the target's resolution; one latent frame is an image.
        frame_index: Pixel frame of the target that its first frame is pinned to.
        strength: 1 keeps it exactly, 0 regenerates it.
    """

    latent: Tensor
    frame_index: int
    strength: float = 1.0

    def apply(self, state: LatentState, target: VideoTarget) -> LatentState:
        """Append its tokens, shifted in time.

        Raises:
            ItemError: If ``frame_index`` is negative.
        """
        if self.frame_index < 0:
            raise ItemError(f"frame_index={self.frame_index} must not be negative")
        tokens = patchify_video(self.latent)
        return append_tokens(
            state,
            target,
            latent=torch.zeros_like(tokens),
            clean_latent=tokens,
            positions=_pinned(target, self.latent.shape[2], self.frame_index),
            denoise=1 - self.strength,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedKeyframes:
    """Single frames that are generated along with the clip, one slot of tokens each.

    Only for checkpoints that declare ``use_keyframes_abs_pos_embedding``.

    Attributes:
        frame_indices: Pixel frames of the target, strictly increasing.
        latent: Where generation starts, ``(B, C, slots, H, W)``, or ``None`` for zeros.
    """

    frame_indices: Sequence[int]
    latent: Tensor | None = None

    def apply(self, state: LatentState, target: VideoTarget) -> LatentState:
        """Append the slots' tokens and mark them in ``keyframes_mask``.

        Raises:
            ItemError: If the indices do not increase or leave the clip, or do not fit ``latent``.
            ValueError: If the state already has slots, or no ``keyframes_mask`` to mark them in.
        """
        last = target.shape.pixel_frames(target.factors) - 1
        edges = (-1, *self.frame_indices, last + 1)
        if any(later <= earlier for earlier, later in pairwise(edges)):
            raise ItemError(f"frame_indices={[*self.frame_indices]} must increase from 0 to {last}")
        if _slot_mask(state, target).any():
            raise ValueError("the state already has generated keyframes; give them in one item")
        shape = replace(target.shape, frames=len(self.frame_indices))
        latent = state.latent.new_zeros(shape.to_tuple()) if self.latent is None else self.latent
        if latent.shape != shape.to_tuple():
            raise ItemError(f"latent is {tuple(latent.shape)}, the slots are {shape.to_tuple()}")
        tokens = patchify_video(latent)
        return append_tokens(
            state,
            target,
            latent=tokens,
            clean_latent=torch.zeros_like(tokens),
            positions=torch.cat([_pinned(target, 1, i) for i in self.frame_indices], dim=2),
            denoise=1,
            single_frame=True,
        )


def generated_keyframes(state: LatentState, target: VideoTarget) -> Tensor:
    """Content of the generated slots, ``(B, C, slots, H, W)``; read before conditioning is cleared.

    Raises:
        ValueError: If conditioning is already cleared.
    """
    tokens = state.latent[:, target.tokens :][:, _slot_mask(state, target)]
    slots = tokens.shape[1] // target.tokens_per_frame
    return unpatchify_video(tokens, replace(target.shape, frames=slots))


def _slot_mask(state: LatentState, target: VideoTarget) -> Tensor:
    """Which appended tokens belong to generated slots, ``(M,)``; the same for every request."""
    if state.keyframes_mask is None:
        raise ValueError("the state has no keyframes_mask: its conditioning has been cleared")
    return state.keyframes_mask[0, target.tokens :, 0] > 0


def _pinned(target: VideoTarget, frames: int, frame_index: int) -> Tensor:
    """Positions of latent frames on the target's grid, moved to a pixel frame."""
    shape: VideoLatentShape = replace(target.shape, frames=frames)
    # Only at the start of the clip does the first latent frame span a single pixel frame.
    positions = video_positions(
        shape, fps=target.fps, factors=target.factors, causal=frame_index == 0
    )
    positions[:, 0] += frame_index / target.fps
    if frames == 1:
        positions[:, 0, :, 1] = positions[:, 0, :, 0] + 1 / target.fps
    return positions
