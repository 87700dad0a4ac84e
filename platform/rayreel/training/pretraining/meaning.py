"""What a caption says of a scene, and how much of it was understood."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rayreel.world.captions import SOUNDS, Sound
from rayreel.world.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Background,
    Colour,
    Motion,
    Shape,
    Size,
)

MOST_THINGS = 2

NONE = -100
"""Class of what a thing would be that is not there: losses leave it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidThing:
    """What is said of one thing; ``None`` stands for what is left out."""

    colour: Colour
    shape: Shape
    motion: Motion
    size: Size | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a caption says; by default nothing.

    Attributes:
        things: Of different colours, at most two.
        background: ``None`` where it is left out.
        sounds: What is said to be heard.
    """

    things: tuple[SaidThing, ...] = ()
    background: Background | None = None
    sounds: frozenset[Sound] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Meanings as classes; colours are slots for the things.

    Letters: B captions, C colours. What is left out is the last class of its kind.

    Attributes:
        present: Whether there is a thing of the colour, float32 ``(B, C)``.
        shape: int64 ``(B, C)``, ``NONE`` where there is no thing.
        size: Likewise.
        motion: Likewise.
        background: int64 ``(B,)``.
        count: Number of things, int64 ``(B,)``.
        sounds: Which are said, float32 ``(B, len(SOUNDS))``.
    """

    present: Tensor
    shape: Tensor
    size: Tensor
    motion: Tensor
    background: Tensor
    count: Tensor
    sounds: Tensor


def classes(meanings: Iterable[Meaning]) -> Classes:
    """Meanings as classes; at least one."""
    meanings = list(meanings)
    slots = torch.full((3, len(meanings), len(COLOURS)), NONE)
    for row, meaning in enumerate(meanings):
        for thing in meaning.things:
            size = len(SIZES) if thing.size is None else SIZES.index(thing.size)
            found = (SHAPES.index(thing.shape), size, MOTIONS.index(thing.motion))
            slots[:, row, COLOURS.index(thing.colour)] = torch.tensor(found)
    shape, size, motion = slots
    backgrounds = (*BACKGROUNDS, None)
    return Classes(
        present=(shape != NONE).float(),
        shape=shape,
        size=size,
        motion=motion,
        background=torch.tensor([backgrounds.index(one.background) for one in meanings]),
        count=torch.tensor([len(one.things) for one in meanings]),
        sounds=torch.tensor(
            [[sound in one.sounds for sound in SOUNDS] for one in meanings]
        ).float(),
    )


def understood(said: Iterable[Meaning], read: Iterable[Meaning]) -> dict[str, float]:
    """How much of what captions say was read in them.

    Args:
        said: What they say.
        read: What was made of them, in the same order.

    Returns:
        Shares, by what they are of: those of ``colours``, ``background`` and ``sounds`` are of
        captions, in which nothing may be missing or too much; those of ``shape``, ``size`` and
        ``motion`` are of things, and of one that was not seen they are wrong.
    """
    found: dict[str, list[bool]] = {}
    for one, other in zip(said, read, strict=True):
        seen = {thing.colour: thing for thing in other.things}
        agree = {
            "colours": [{thing.colour for thing in one.things} == set(seen)],
            "background": [one.background == other.background],
            "sounds": [one.sounds == other.sounds],
        }
        for name in ("shape", "size", "motion"):
            agree[name] = [
                thing.colour in seen and getattr(thing, name) == getattr(seen[thing.colour], name)
                for thing in one.things
            ]
        for name, right in agree.items():
            found.setdefault(name, []).extend(right)
    return {name: sum(right) / len(right) for name, right in found.items() if right}
