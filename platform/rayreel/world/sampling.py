"""Scenes at random: the same scene for the same seed."""

import math
from random import Random
from typing import Literal

import numpy as np

from rayreel.world.motion import BOUNCE_HEIGHT, DIRECTION, GROWTH, TURN_RADIUS, track
from rayreel.world.palette import RADIUS
from rayreel.world.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    NEW_COLOUR,
    NEW_SHAPE,
    SHAPES,
    SIZES,
    Colour,
    Motion,
    Scene,
    Shape,
    Size,
    Thing,
    is_held_out,
)
from rayreel.world.shapes import REACH

Split = Literal["train", "held-out", "all"]

_CROSSING = (0.25, 0.45)
_TURNS = (0.5, 0.75)
_BOUNCES = (1.2, 1.8)
# A bounce at the very start could neither be seen nor heard.
_FIRST_BOUNCE_S = 0.1
_MARGIN = 0.02
# Two things are laid out anew until they keep apart, and at most so often.
_TRIES = 60
_LOOKED_AT_S = np.linspace(0, 1.05, 15)

_OLD_COLOURS = tuple(colour for colour in COLOURS if colour != NEW_COLOUR)
_OLD_SHAPES = tuple(shape for shape in SHAPES if shape != NEW_SHAPE)


def sample_scene(
    seed: int | str | Random,
    *,
    things: Literal[1, 2] | None = None,
    split: Split = "train",
    new: bool = False,
) -> Scene:
    """Draw a scene.

    Args:
        seed: What the scene depends on; a generator is drawn from.
        things: How many; by default two in two of five scenes.
        split: ``train`` has no combination of colour, shape and motion that is held out, and
            ``held-out`` no other; ``all`` has any.
        new: Whether the first thing has the new colour, the new shape, or both; without it, nothing
            has.
    """
    rng = seed if isinstance(seed, Random) else Random(seed)
    count = things or (2 if rng.random() < 0.4 else 1)
    kinds = [_kind(rng, split, new=new)]
    while len(kinds) < count:
        kind = _kind(rng, split, new=False)
        if kind[0] != kinds[0][0]:
            kinds.append(kind)
    rng.shuffle(kinds)
    return Scene(background=rng.choice(BACKGROUNDS), things=_laid_out(rng, kinds))


def _kind(rng: Random, split: Split, *, new: bool) -> tuple[Colour, Shape, Motion]:
    while True:
        colour, shape, motion = (
            rng.choice(_OLD_COLOURS),
            rng.choice(_OLD_SHAPES),
            rng.choice(MOTIONS),
        )
        if new:
            which = rng.randrange(3)
            colour = colour if which == 0 else NEW_COLOUR
            shape = shape if which == 1 else NEW_SHAPE
        if split == "all" or is_held_out(colour, shape, motion) == (split == "held-out"):
            return colour, shape, motion


def _laid_out(rng: Random, kinds: list[tuple[Colour, Shape, Motion]]) -> tuple[Thing, ...]:
    """Things of the kinds, at places where they keep apart as long as they are looked at."""
    best: tuple[Thing, ...] = ()
    widest = -math.inf
    for _ in range(_TRIES):
        found = tuple(_placed(rng, *kind, rng.choice(SIZES)) for kind in kinds)
        gap = _gap(*found) if len(found) == 2 else math.inf
        if gap > widest:
            best, widest = found, gap
        if widest > _MARGIN:
            break
    return best


def _placed(rng: Random, colour: Colour, shape: Shape, motion: Motion, size: Size) -> Thing:
    reach = RADIUS[size] * REACH[shape] + _MARGIN
    speed = phase = 0.0
    left = right = above = below = reach
    if motion in DIRECTION:
        speed = rng.uniform(*_CROSSING)
        # It may start anywhere on its way, even half outside.
        if DIRECTION[motion][0]:
            left = right = 0.0
        else:
            above = below = 0.0
    elif motion == "circle":
        speed, phase = rng.uniform(*_TURNS), rng.random()
        left = right = above = below = reach + TURN_RADIUS
    elif motion == "bounce":
        speed = rng.uniform(*_BOUNCES)
        phase = rng.uniform(_FIRST_BOUNCE_S * speed, 1 - _FIRST_BOUNCE_S * speed)
        above = reach + BOUNCE_HEIGHT
    elif motion == "grow":
        left = right = above = below = _MARGIN + RADIUS[size] * REACH[shape] * sum(GROWTH)
    return Thing(
        colour=colour,
        shape=shape,
        size=size,
        motion=motion,
        x=round(rng.uniform(left, 1 - right), 3),
        y=round(rng.uniform(above, 1 - below), 3),
        speed=round(speed, 3),
        phase=round(phase, 3),
    )


def _gap(one: Thing, other: Thing) -> float:
    """Least distance between the outlines of two things in a square frame."""
    first, second = track(one, _LOOKED_AT_S), track(other, _LOOKED_AT_S)
    across, down = np.abs(first.x - second.x), np.abs(first.y - second.y)
    # What leaves the frame enters on the other side.
    distance = np.hypot(np.minimum(across, 1 - across), np.minimum(down, 1 - down))
    reached = first.radius * REACH[one.shape] + second.radius * REACH[other.shape]
    return float((distance - reached).min())
