"""A scene as sound: a tone for each thing, and a click for each bounce."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayreel.world.motion import bounce_times, track
from rayreel.world.palette import PITCH_HZ, RADIUS
from rayreel.world.scene import Scene, Thing

Array = NDArray[np.float64]

HARMONICS = (1.0, 0.3, 0.12)
"""Loudness of a tone's fundamental and of its overtones."""

# Overtones stay below the clicks, so that none of them hides one.
_HIGHEST_HZ = 2000.0

# With these, two large things that bounce at once, or grow, stay below 0.9.
_LOUDNESS_PER_RADIUS = 1.0
_CLICK_LOUDNESS = 0.16

_FADE_S = 0.03
_CLICK_S = 0.016
_CLICK_DECAY_S = 0.004
_CLICK_HZ = (2300.0, 3170.0, 4410.0)
# Place and loudness run straight between so many values a second, lest a jump be heard.
_CONTROLS_HZ = 50


def sound(scene: Scene, *, seconds: float, rate: int) -> Tensor:
    """Sound of a scene: the same samples for the same scene.

    A thing's tone has the pitch of its colour, is louder the larger it is, and comes from where it
    is; a thing that bounces clicks when it touches the floor.

    Args:
        scene: What to hear.
        seconds: Duration; the sound fades in at its start and out at its end.
        rate: Samples per second.

    Returns:
        Float32 stereo ``(2, samples)``, within [-0.9, 0.9].
    """
    times = np.arange(round(seconds * rate)) / rate
    heard = np.zeros((2, len(times)))
    for thing in scene.things:
        heard += _tone(thing, times)
    heard *= np.clip(np.minimum(times, seconds - times) / _FADE_S, 0, 1)
    for thing in scene.things:
        for moment in bounce_times(thing, seconds):
            _add_click(heard, moment, float(track(thing, [moment]).x[0]), rate)
    return torch.from_numpy(heard.astype(np.float32))


def _tone(thing: Thing, times: Array) -> Array:
    controls = np.arange(0, times[-1] + 2 / _CONTROLS_HZ, 1 / _CONTROLS_HZ)
    at = track(thing, controls)
    angle = 2 * math.pi * PITCH_HZ[thing.colour] * times
    wave = np.zeros_like(times)
    for number, loudness in enumerate(HARMONICS, start=1):
        if number * PITCH_HZ[thing.colour] < _HIGHEST_HZ:
            wave += loudness * np.sin(number * angle)
    wave *= np.interp(times, controls, at.radius * _LOUDNESS_PER_RADIUS)
    return wave * _sides(np.interp(times, controls, at.x))


def _add_click(heard: Array, moment: float, x: float, rate: int) -> None:
    first = math.ceil(moment * rate)
    times = np.arange(first, min(first + round(_CLICK_S * rate), heard.shape[1])) / rate - moment
    wave = sum(np.sin(2 * math.pi * hz * times) for hz in _CLICK_HZ) / len(_CLICK_HZ)
    wave = _CLICK_LOUDNESS * wave * np.exp(-times / _CLICK_DECAY_S)
    heard[:, first : first + len(times)] += wave * _sides(np.full_like(times, x))


def _sides(x: Array) -> Array:
    """Loudness left and right ``(2, N)`` of what is at ``x``; their powers sum to 1."""
    angle = x * math.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)])


LOUDNESS = {size: radius * _LOUDNESS_PER_RADIUS for size, radius in RADIUS.items()}
"""Amplitude of the fundamental of a tone, both sides together, by the size of its thing."""
