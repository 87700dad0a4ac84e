"""How a thing moves: which of the motions that are drawn explains its path best."""

import math

import numpy as np
from numpy.typing import NDArray

from rayreel.world.motion import DIRECTION
from rayreel.world.scene import Motion

Array = NDArray[np.float64]

# All in shares of the frame's shorter side, and per second.
_STILL = 0.025
_LEAST_SPEED = 0.15
_LEAST_GROWTH = 0.25
_TURN_RADII = (0.06, 0.35)
_LEAST_BOUNCE = 0.1
_WORST_FIT = 0.05

_TURNS = np.arange(0.6, 2.0, 0.05)
_BOUNCES = np.arange(1.0, 3.0, 0.05)
_PHASES = np.arange(0, 1, 0.05)

_GROWTH_STEP_S = 0.17
# How far about a bounce its path is looked at, and how finely its time is searched for.
_CONTACT_S = 0.19
_CONTACT_STEP_S = 0.002


def motion_of(times: Array, x: Array, y: Array, radius: Array) -> Motion | None:
    """The motion that explains a path; ``None`` if none does.

    Args:
        times: Seconds ``(T,)``.
        x: Centre ``(T,)`` in lengths of the frame's shorter side; steps over its edges undone.
        y: Likewise, downwards.
        radius: Likewise ``(T,)``.
    """
    if _spread(x - x.mean(), y - y.mean()) < _STILL:
        return _standing(times, radius)
    fits = {
        **_crossing(times, x, y),
        "circle": _circle(times, x, y),
        "bounce": _bounce(times, x, y),
    }
    best: Motion = min(fits, key=lambda motion: fits[motion])
    return best if fits[best] < _WORST_FIT else None


def bounces_of(times: Array, y: Array) -> list[float]:
    """When a thing that bounces touches the floor, in seconds.

    Args:
        times: Seconds ``(T,)``, in equal steps.
        y: Its height ``(T,)``, downwards.
    """
    middle = (y.min() + y.max()) / 2
    near = [np.abs(times - time) < _CONTACT_S / 2 for time in times]
    low = [i for i in range(1, len(y) - 1) if y[i] > middle and y[i] == y[near[i]].max()]
    return [found for i in low if (found := _contact(times, y, times[i])) is not None]


def _spread(*residuals: Array) -> float:
    """Root of the mean square distance."""
    return math.sqrt(sum(float(np.mean(np.square(residual))) for residual in residuals))


def _standing(times: Array, radius: Array) -> Motion | None:
    step = max(1, round(_GROWTH_STEP_S / (times[1] - times[0]))) if len(times) > 1 else 1
    if len(times) <= step:
        return "still"
    # The median leaves out the moments when it is small again.
    gains = np.log(radius[step:] / radius[:-step]) / (times[step:] - times[:-step])
    growth = float(np.median(gains))
    if growth > _LEAST_GROWTH:
        return "grow"
    return "still" if growth > -_LEAST_GROWTH else None


def _crossing(times: Array, x: Array, y: Array) -> dict[Motion, float]:
    (speed_x, speed_y), (start_x, start_y) = np.polyfit(times, np.stack([x, y], 1), 1)
    fits: dict[Motion, float] = {}
    for motion, (right, down) in DIRECTION.items():
        speed = right * speed_x + down * speed_y
        rest_x = x - start_x - speed_x * times if right else x - x.mean()
        rest_y = y - start_y - speed_y * times if down else y - y.mean()
        fits[motion] = _spread(rest_x, rest_y) if speed > _LEAST_SPEED else math.inf
    return fits


def _circle(times: Array, x: Array, y: Array) -> float:
    """Misfit of the best round path, either way round."""
    best = math.inf
    for turns in (*_TURNS, *-_TURNS):
        turn = np.exp(2j * math.pi * turns * times)
        columns = np.stack([turn, np.ones_like(turn)], 1)
        path = x + 1j * y
        solution = np.linalg.lstsq(columns, path, rcond=None)[0]
        if _TURN_RADII[0] < abs(solution[0]) < _TURN_RADII[1]:
            rest = path - columns @ solution
            best = min(best, _spread(rest.real, rest.imag))
    return best


def _bounce(times: Array, x: Array, y: Array) -> float:
    """Misfit of the best row of equal parabolas."""
    bounces, phases = np.meshgrid(_BOUNCES, _PHASES, indexing="ij")
    within = (times * bounces[..., None] + phases[..., None]) % 1
    height = 4 * within * (1 - within)
    height = height - height.mean(-1, keepdims=True)
    below = y - y.mean()
    # Least squares with one unknown, for all rates and phases at once.
    size = -(height * below).sum(-1) / np.square(height).sum(-1)
    rest = np.square(below + size[..., None] * height).mean(-1)
    rest[size < _LEAST_BOUNCE] = math.inf
    return math.sqrt(float(rest.min()) + float(np.var(x)))


def _contact(times: Array, y: Array, about: float) -> float | None:
    """The time about which a path falls and rises alike, to a point, if it is seen."""
    near = np.abs(times - about) < _CONTACT_S
    best, found = math.inf, None
    step = times[1] - times[0]
    for time in np.arange(about - 1.5 * step, about + 1.5 * step, _CONTACT_STEP_S):
        since = times[near] - time
        if (since < 0).sum() < 2 or (since > 0).sum() < 2:
            continue
        columns = np.stack([np.ones_like(since), np.abs(since), np.square(since)], 1)
        solution = np.linalg.lstsq(columns, y[near], rcond=None)[0]
        misfit = float(np.square(y[near] - columns @ solution).sum())
        if misfit < best and solution[1] < 0:
            best, found = misfit, float(time)
    return found
