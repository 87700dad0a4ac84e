"""Parts of a stream that stay clean: what a model is shown of what it is to generate."""

import torch
from torch import Tensor

from rayreel.config.strategies import FirstFrame, Mask, Prefix, SpatialCrop, Suffix
from rayreel.diffusion.states import Target, VideoTarget
from rayreel.types import ScaleFactors

Region = FirstFrame | Prefix | Suffix | SpatialCrop | Mask
"""Conditions that are parts of the target itself."""

KEPT = 0.5
"""Values of masks above it stay clean."""


def kept_tokens(region: Region, target: Target, mask: Tensor | None = None) -> Tensor:
    """Target tokens that a condition keeps clean.

    Args:
        region: The condition.
        target: What the tokens are.
        mask: Of the sample, for ``Mask``: ``(F, H, W)`` of a picture, ``(T,)`` of a sound.

    Returns:
        Bool ``(T,)``.

    Raises:
        ValueError: If the mask is not one of the target.
    """
    kept = torch.zeros(target.tokens, dtype=torch.bool)
    unit = target.tokens_per_frame if isinstance(target, VideoTarget) else 1
    match region:
        case Prefix(length=length):
            kept[: length * unit] = True
        case Suffix(length=length):
            kept[max(target.tokens - length * unit, 0) :] = True
        case Mask():
            kept = _marked(mask, target)
        case FirstFrame():
            shape = _of_video(region, target).shape
            # Of an image nothing would be left to learn.
            if shape.frames > 1:
                kept[:unit] = True
        case SpatialCrop():
            video = _of_video(region, target)
            shape = video.shape
            top, left, bottom, right = latent_region(region, video.factors)
            # A slice ends where its axis does, so the region needs no clamp.
            grid = kept.view(shape.frames, shape.height, shape.width)
            grid[:, top:bottom, left:right] = True
    return kept


def latent_region(crop: SpatialCrop, factors: ScaleFactors) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a rectangle in latent positions; each is rounded down."""
    top, left, bottom, right = crop.region
    return (
        top // factors.height,
        left // factors.width,
        bottom // factors.height,
        right // factors.width,
    )


def _marked(mask: Tensor | None, target: Target) -> Tensor:
    # Without batch and channels: frames, rows and columns; or the steps of a sound.
    size = target.shape.to_tuple()
    expected = size[2:] if isinstance(target, VideoTarget) else size[2:3]
    if mask is None or mask.shape != expected:
        found = "none" if mask is None else tuple(mask.shape)
        raise ValueError(f"expected a mask of {expected}, the sample's is {found}")
    return mask.flatten() > KEPT


def _of_video(region: Region, target: Target) -> VideoTarget:
    assert isinstance(target, VideoTarget), f"strategies have no {region.type} of sound"
    return target
