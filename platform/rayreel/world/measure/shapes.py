"""Which shape a thing has: how well its outline covers each of the shapes that are drawn."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from rayreel.world.scene import SHAPES, Shape
from rayreel.world.shapes import AREA, OUTLINES

Array = NDArray[np.float32]

# Half the side of the square that shapes are compared in, in radii of a disc of equal area.
_HALF_SIDE = 2.0
_GRID = 41
# Outlines are compared as sharp as they are drawn, and ever softer, in the same radii: a star that
# is blurred is like a blurred star, and less like a sharp one than a disc is.
_BLURS = (0.08, 0.16, 0.24, 0.32)
# Discs with a bite, bars, rings and crosses overlap less than this with what is like them most.
_LEAST_OVERLAP = 0.7
_MOST_FRAMES = 16


def shape_of(
    cover: Array, centres: NDArray[np.float64], areas: NDArray[np.float64]
) -> Shape | None:
    """The shape that fits best; ``None`` if none does.

    Args:
        cover: How much of each pixel is the thing, ``(T, H, W)`` in [0, 1].
        centres: Its centre of mass in pixels ``(T, 2)``, x before y.
        areas: Its area in pixels ``(T,)``; at least one is positive.
    """
    # The largest views show most; those in which something hides a part of it are smaller.
    order = np.argsort(-areas)[:_MOST_FRAMES]
    views = [_view(cover[index], centres[index], areas[index]) for index in order if areas[index]]
    mean = np.mean(views, axis=0)
    fits = {name: max(_overlap(mean, one) for one in soft) for name, soft in _TEMPLATES.items()}
    best = max(fits, key=lambda name: fits[name])
    return best if fits[best] > _LEAST_OVERLAP else None


def _view(cover: Array, centre: NDArray[np.float64], area: float) -> Array:
    """What is about a centre, scaled to an area of a disc of radius 1; edges are joined."""
    steps = np.linspace(-_HALF_SIDE, _HALF_SIDE, _GRID) * math.sqrt(area / math.pi)
    x, y = np.meshgrid(centre[0] - 0.5 + steps, centre[1] - 0.5 + steps)
    found: Array = map_coordinates(cover, [y, x], order=1, mode="grid-wrap")
    return found


def _overlap(one: Array, other: Array) -> float:
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def _templates(shape: Shape) -> list[Array]:
    """Views of a shape, ever softer."""
    radius, side = 24.0, 160
    steps = ((np.arange(side) + 0.5 - side / 2) / radius).astype(np.float32)
    sharp = np.clip(0.5 - OUTLINES[shape](steps[None, :], steps[:, None]) * radius, 0, 1)
    disc = radius * math.sqrt(AREA[shape] / math.pi)
    soft = [gaussian_filter(sharp, blur * disc) for blur in _BLURS]
    centre = np.array([side / 2, side / 2])
    return [_view(one, centre, float((one > 0.5).sum())) for one in soft]


_TEMPLATES = {shape: _templates(shape) for shape in SHAPES}
