"""Shapes as signed distances from their outlines, so that edges are smooth at any size."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rayreel.world.scene import Shape

Array = NDArray[np.float32]


def _circle(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y) - np.float32(1)


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.89)


def _triangle(x: Array, y: Array) -> Array:
    # Sides of an equilateral triangle whose corners are 1.35 away from its centre.
    return np.maximum(y, np.abs(x) * np.float32(math.sqrt(3) / 2) - y / 2) - np.float32(0.675)


def _star(x: Array, y: Array) -> Array:
    # Five lines make a pentagram; a tip lies outside one of them, so the second largest counts.
    first = np.full(np.broadcast(x, y).shape, -np.inf, np.float32)
    second = first
    for corner in range(5):
        angle = corner * 2 * math.pi / 5 - math.pi / 2
        line = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
        second = np.maximum(second, np.minimum(first, line))
        first = np.maximum(first, line)
    return second - np.float32(1.45 * math.cos(2 * math.pi / 5))


_HEART_SIDE = 1.36
# How far the centre of mass of the square and the half discs on two of its sides is above its own.
_HEART_SHIFT = 0.3013


def _heart(x: Array, y: Array) -> Array:
    # A square on its corner, and a disc over each of its upper sides.
    half = np.float32(_HEART_SIDE / 2)
    lobe = np.float32(_HEART_SIDE / 2 / math.sqrt(2))
    x, y = np.abs(x), y - np.float32(_HEART_SHIFT)
    diamond = (x + np.abs(y)) * np.float32(math.sqrt(0.5)) - half
    disc = np.sqrt((x - lobe) ** 2 + (y + lobe) ** 2) - half
    heart: Array = np.minimum(diamond, disc)
    return heart


OUTLINES: dict[Shape, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
}
"""Signed distance from an outline about the centre of mass, negative inside; of radius 1."""

REACH: dict[Shape, float] = {
    "circle": 1.0,
    "square": 0.89,
    "triangle": 1.35,
    "star": 1.45,
    "heart": 1.27,
}
"""How far a shape goes from its centre along x or y, in radii of the circle of its size."""

AREA: dict[Shape, float] = {
    "circle": math.pi,
    "square": 4 * 0.89**2,
    "triangle": 0.75 * math.sqrt(3) * 1.35**2,
    "star": 1.1226 * 1.45**2,
    "heart": _HEART_SIDE**2 * (1 + math.pi / 4),
}
"""Area in squares of that radius."""
