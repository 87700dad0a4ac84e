"""What a conditioning item is, and how one appends tokens.

``strength`` means the same in every item: 1 keeps the content exactly, 0 regenerates it; in between
a token starts partly noised and is pulled towards the content at every step.
"""

from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from rayreel.diffusion.states import AudioTarget, Target, VideoTarget
from rayreel.types import LatentState

TargetT_contra = TypeVar("TargetT_contra", VideoTarget, AudioTarget, contravariant=True)


class ConditioningItem(Protocol[TargetT_contra]):
    """Edits a state before it is noised; it may append tokens at the end, and remove none."""

    def apply(self, state: LatentState, target: TargetT_contra) -> LatentState:
        """A new state; ``target`` says what the first tokens are."""


def append_tokens(
    state: LatentState,
    target: Target,
    *,
    latent: Tensor,
    clean_latent: Tensor,
    positions: Tensor,
    denoise: float,
    single_frame: bool = False,
) -> LatentState:
    """The state with more tokens behind those it has.

    Args:
        state: State to extend.
        target: What its first tokens are.
        latent: Start of the new tokens before noise, ``(B, M, D)``.
        clean_latent: Content that they are pulled to, like ``latent``.
        positions: Their positions, ``(B, axes, M, 2)``.
        denoise: Their denoise mask, 0 to keep them and 1 to generate them.
        single_frame: Whether each of them holds a single pixel frame that is generated.
    """
    new = state.denoise_mask.new_full((*latent.shape[:2], 1), denoise)
    extended = replace(
        state,
        latent=torch.cat((state.latent, latent.to(state.latent)), dim=1),
        clean_latent=torch.cat((state.clean_latent, clean_latent.to(state.clean_latent)), dim=1),
        denoise_mask=torch.cat((state.denoise_mask, new), dim=1),
        positions=torch.cat((state.positions, positions.to(state.positions)), dim=2),
    )
    if state.attention_mask is not None:
        weights = torch.ones_like(new[..., 0])
        extended = replace(extended, attention_mask=extend_attention(state, target, weights))
    if state.keyframes_mask is not None:
        marks = torch.full_like(new, float(single_frame))
        extended = replace(extended, keyframes_mask=torch.cat((state.keyframes_mask, marks), dim=1))
    return extended


def extend_attention(state: LatentState, target: Target, weights: Tensor) -> Tensor:
    """Self-attention strengths of a state and the tokens that are about to be appended to it.

    New tokens and target tokens see each other with the new tokens' weights; new tokens see each
    other fully, and earlier conditioning tokens not at all.

    Args:
        state: State before the new tokens, ``N`` of them.
        target: What its first tokens are.
        weights: Strength of each new token in [0, 1], ``(B, M)``.

    Returns:
        Float32 ``(B, N + M, N + M)``.
    """
    batch, added = weights.shape
    kept = state.latent.shape[1]
    mask = weights.new_zeros(batch, kept + added, kept + added)
    mask[:, :kept, :kept] = 1 if state.attention_mask is None else state.attention_mask
    mask[:, : target.tokens, kept:] = weights[:, None, :]
    mask[:, kept:, : target.tokens] = weights[:, :, None]
    mask[:, kept:, kept:] = 1
    return mask
