"""What is seen in frames: the background and the things before it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, uniform_filter
from torch import Tensor

from rayreel.world.measure.motion import bounces_of, motion_of
from rayreel.world.measure.shapes import shape_of
from rayreel.world.palette import BACKGROUND_RGB, RADIUS, RGB
from rayreel.world.scene import Background, Colour, Motion, Shape, Size
from rayreel.world.shapes import AREA

Array = NDArray[np.float32]

# Distances between colours, in levels of 255: things are 100 and more from all backgrounds.
_OTHER_THAN_BACKGROUND = 50.0
_LEAST_CHROMA = 50.0
# Hues of one thing are closer than this, in degrees; those of two things are not.
_HUE_REACH = 13
# A colour that covers less than this share of all things is an edge between others, or noise.
_LEAST_SHARE = 0.05
_LEAST_PIXELS_PER_FRAME = 4
_MOST_THINGS = 3
# Cover below this is noise of the codec.
_LEAST_COVER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenThing:
    """A thing in a clip.

    Attributes:
        colour: The nearest by hue.
        shape: The one that fits best; ``None`` if none does.
        size: The nearest by area.
        motion: The one that explains its path; ``None`` if none does.
        centres: Float64 ``(T, 2)``: x and y in shares of width and height, in [0, 1).
        radii: Float64 ``(T,)``: of a circle of its size, in shares of the frame's shorter side.
        bounces_s: When it touches the floor, if it bounces.
    """

    colour: Colour
    shape: Shape | None
    size: Size
    motion: Motion | None
    centres: NDArray[np.float64]
    radii: NDArray[np.float64]
    bounces_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is seen in a clip.

    Attributes:
        background: The nearest by colour.
        things: The largest first; empty if nothing is seen.
    """

    background: Background
    things: tuple[SeenThing, ...]


def measure_picture(frames: Tensor, fps: float) -> Picture:
    """What frames show.

    Args:
        frames: RGB ``uint8`` ``(T, H, W, 3)``, of any size.
        fps: Frames per second.

    Raises:
        ValueError: If there are no such frames.
    """
    if frames.dim() != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"expected frames (T, H, W, 3), not {tuple(frames.shape)}")
    pixels = frames.cpu().numpy().astype(np.float32)
    behind = np.median(pixels, axis=(0, 1, 2))
    background = min(
        BACKGROUND_RGB, key=lambda name: float(np.linalg.norm(behind - BACKGROUND_RGB[name]))
    )
    colours = _colours(pixels, behind)
    covers = _covers(pixels, behind, [rgb for _, rgb in colours])
    seen = [
        thing
        for (name, _), cover in zip(colours, covers, strict=True)
        if (thing := _seen(name, cover, fps)) is not None
    ]
    return Picture(background=background, things=tuple(seen))


def _colours(pixels: Array, behind: Array) -> list[tuple[Colour, Array]]:
    """Names of the colours of things and what they are exactly, the most common first."""
    smooth = uniform_filter(pixels, size=(1, 3, 3, 1), mode="nearest")
    inside = np.linalg.norm(smooth - behind, axis=-1) > _OTHER_THAN_BACKGROUND
    # Edges have colours between those of a thing and of what is behind it.
    edge = max(1, round(min(pixels.shape[1:3]) / 64))
    inside = binary_erosion(inside, np.ones((1, 3, 3)), iterations=edge, border_value=1)
    found = smooth[inside]
    found = found[np.ptp(found, axis=1) > _LEAST_CHROMA]
    hues = _hue(found)
    least = max(_LEAST_SHARE * len(hues), _LEAST_PIXELS_PER_FRAME * len(pixels))
    colours: dict[Colour, Array] = {}
    while len(hues) >= least and len(colours) < _MOST_THINGS:
        counts = np.bincount(hues.astype(int) % 360, minlength=360)
        windows = sum(np.roll(counts, shift) for shift in range(-_HUE_REACH // 2, _HUE_REACH // 2))
        peak = float(np.argmax(windows))
        close = _turn(hues, peak) < _HUE_REACH
        if close.sum() < least:
            break
        middle = np.median(found[close], axis=0)
        hue = _hue(middle[None])[0]
        name = min(_HUES, key=lambda colour: float(_turn(np.array(_HUES[colour]), hue)))
        colours.setdefault(name, middle)
        found, hues = found[~close], hues[~close]
    return list(colours.items())


def _covers(pixels: Array, behind: Array, colours: list[Array]) -> list[Array]:
    """How much of each pixel is of each colour, ``(T, H, W)`` in [0, 1]."""
    ways = [colour - behind for colour in colours]
    apart = pixels - behind
    shares = [np.clip(apart @ way / (way @ way), 0, 1) for way in ways]
    rests = [
        np.square(apart - share[..., None] * way).sum(-1)
        for share, way in zip(shares, ways, strict=True)
    ]
    nearest = np.argmin(rests, axis=0) if rests else None
    return [
        np.where((nearest == index) & (share > _LEAST_COVER), share, 0).astype(np.float32)
        for index, share in enumerate(shares)
    ]


def _seen(colour: Colour, cover: Array, fps: float) -> SeenThing | None:
    _, height, width = cover.shape
    centres, areas = _centres(cover)
    shown = areas >= _LEAST_PIXELS_PER_FRAME
    if shown.sum() < max(1, len(areas) / 2):
        return None
    shape = shape_of(cover, centres, areas)
    side = min(height, width)
    radii = np.sqrt(areas / (AREA[shape] if shape else math.pi)) / side
    times = np.arange(len(areas)) / fps
    size = np.array([width, height])
    path = np.unwrap(centres[shown] / size, axis=0, period=1.0) * size / side
    motion = motion_of(times[shown], path[:, 0], path[:, 1], radii[shown])
    bounces = bounces_of(times[shown], path[:, 1]) if motion == "bounce" else []
    # Of what grows, the size is that of its middle, half a second after the start.
    typical = float(np.median(radii[shown & (times <= 1)]))
    return SeenThing(
        colour=colour,
        shape=shape,
        size=min(RADIUS, key=lambda size: abs(math.log(typical / RADIUS[size]))),
        motion=motion,
        centres=centres / size,
        radii=radii,
        bounces_s=tuple(bounces),
    )


def _centres(cover: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of mass in pixels ``(T, 2)``, and areas in pixels ``(T,)``; edges are joined."""
    areas = (cover > 0.5).sum((1, 2)).astype(np.float64)
    across, down = cover.sum(1), cover.sum(2)
    x, y = _round_mean(across), _round_mean(down)
    reach = 2.5 * np.sqrt(areas / math.pi)[:, None]
    # What is far from the middle is something else; from near it, the mean needs no circle.
    return np.stack([_near_mean(across, x, reach), _near_mean(down, y, reach)], 1), areas


def _round_mean(weights: Array) -> NDArray[np.float64]:
    """Mean places ``(T,)`` of weights ``(T, N)`` on a circle."""
    length = weights.shape[1]
    turns = np.exp(2j * math.pi * (np.arange(length) + 0.5) / length)
    found: NDArray[np.float64] = np.angle(weights @ turns) / (2 * math.pi) % 1 * length
    return found


def _near_mean(
    weights: Array, about: NDArray[np.float64], reach: NDArray[np.float64]
) -> NDArray[np.float64]:
    length = weights.shape[1]
    away = np.arange(length) + 0.5 - about[:, None]
    away = (away + length / 2) % length - length / 2
    near = np.where(np.abs(away) <= reach, weights, 0)
    found: NDArray[np.float64] = about + (near * away).sum(1) / np.maximum(near.sum(1), 1e-6)
    found %= length
    return found


def _hue(rgb: Array) -> Array:
    """Hues ``(N,)`` in degrees of colours ``(N, 3)``."""
    red, green, blue = rgb.T
    hue: Array = np.degrees(np.arctan2(math.sqrt(3) * (green - blue), 2 * red - green - blue))
    return hue % 360


def _turn(one: Array, other: float) -> Array:
    """How far hues are apart."""
    turn: Array = np.abs((one - other + 180) % 360 - 180)
    return turn


_HUES: dict[Colour, float] = {
    name: float(_hue(np.array([rgb], np.float32))[0]) for name, rgb in RGB.items()
}
