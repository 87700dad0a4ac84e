"""Clips of the drawn world as batches, each drawn from the number of its step alone."""

from random import Random

import torch
from einops import rearrange
from torch import Tensor

from rayreel.config.pretrain import StretchSpec
from rayreel.world.draw import draw
from rayreel.world.sampling import sample_scene
from rayreel.world.scene import Scene

FPS = 24.0

FULL = 128
"""Pixels of a side of a whole frame."""

# Whole scenes at half size, as the first stage makes them, beside cut-outs of those at full size.
_HALVED = 0.4


def pixels(frames: Tensor) -> Tensor:
    """``uint8`` ``(F, H, W, 3)`` as the networks take it: float32 ``(3, F, H, W)`` in [-1, 1]."""
    return rearrange(frames, "f h w c -> c f h w").float() / 127.5 - 1


def scenes(rng: Random, count: int) -> list[Scene]:
    """Scenes that may be learned from."""
    return [sample_scene(rng) for _ in range(count)]


def footage(rng: Random, stretch: StretchSpec) -> Tensor:
    """Clips of a step: cut-outs in time and place, or whole scenes at that size.

    Args:
        rng: What they depend on.
        stretch: Their number and shape.

    Returns:
        float32 ``(B, 3, F, H, W)`` in [-1, 1].
    """
    return torch.stack([_clip(rng, scene, stretch) for scene in scenes(rng, stretch.batch_size)])


def _clip(rng: Random, scene: Scene, stretch: StretchSpec) -> Tensor:
    size, wanted = stretch.size, stretch.num_frames
    whole = size >= FULL or rng.random() < _HALVED
    side = size if whole else FULL
    first = rng.randrange(25 - wanted + 1) if wanted < 25 else 0
    frames = draw(scene, width=side, height=side, num_frames=first + wanted, fps=FPS)
    top, left = (rng.randrange(side - size + 1) for _ in range(2))
    return pixels(frames[first:, top : top + size, left : left + size])
