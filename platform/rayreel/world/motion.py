"""Where things are at a time, and when they touch the floor."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayreel.world.palette import RADIUS
from rayreel.world.scene import Motion, Thing

Array = NDArray[np.float64]

TURN_RADIUS = 0.14
"""Of the path of a thing that goes round, in shares of the frame's shorter side."""

BOUNCE_HEIGHT = 0.15
"""How high a bounce is."""

GROWTH_S = 1.25
"""Time after which a thing that grows is small again."""

GROWTH = (2 / 3, 2 / 3)
"""A growing thing's radius at the start, and what it gains in a second, in radii of its size."""

DIRECTION: dict[Motion, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Motions that cross the frame, and enter again on the other side."""


class Track(NamedTuple):
    """A thing over some times; all arrays ``(T,)``.

    Attributes:
        x: Centre in frame widths, in [0, 1).
        y: Centre in frame heights, in [0, 1).
        radius: Of a circle of its size, in shares of the frame's shorter side.
    """

    x: Array
    y: Array
    radius: Array


def track(thing: Thing, times_s: ArrayLike, *, aspect: float = 1.0) -> Track:
    """Where a thing is.

    Args:
        thing: The thing.
        times_s: Times ``(T,)``.
        aspect: Width of the frame by its height; round paths stay round.
    """
    times = np.asarray(times_s, np.float64)
    x, y = np.full_like(times, thing.x), np.full_like(times, thing.y)
    radius = np.full_like(times, RADIUS[thing.size])
    done = times * thing.speed + thing.phase
    if thing.motion in DIRECTION:
        right, down = DIRECTION[thing.motion]
        x += right * thing.speed * times
        y += down * thing.speed * times
    elif thing.motion == "circle":
        x += TURN_RADIUS * min(1.0, 1 / aspect) * np.cos(2 * math.pi * done)
        y += TURN_RADIUS * min(1.0, aspect) * np.sin(2 * math.pi * done)
    elif thing.motion == "bounce":
        within = done % 1
        y -= BOUNCE_HEIGHT * 4 * within * (1 - within)
    elif thing.motion == "grow":
        start, gain = GROWTH
        radius *= start + gain * (times % GROWTH_S)
    return Track(x % 1, y % 1, radius)


def bounce_times(thing: Thing, duration_s: float) -> list[float]:
    """When a thing touches the floor, in seconds, from the start to before the end.

    Empty for a thing that does not bounce.
    """
    if thing.motion != "bounce":
        return []
    last = math.ceil(duration_s * thing.speed + thing.phase)
    times = ((count - thing.phase) / thing.speed for count in range(math.ceil(thing.phase), last))
    return [time for time in times if time < duration_s]
