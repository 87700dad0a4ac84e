"""What is in a drawn clip: a background and one or two things, as plain values.

Places and lengths are shares of the frame, x to the right and y down; the time is in seconds. So a
scene has no size, length or frame rate of its own.
"""

from typing import Literal, get_args

from pydantic import Field

from rayreel.config.base import StrictModel

Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink"]
Shape = Literal["circle", "square", "triangle", "star", "heart"]
Size = Literal["small", "medium", "large"]
Motion = Literal["left", "right", "up", "down", "circle", "bounce", "grow", "still"]
Background = Literal["black", "grey", "white", "brown"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
SIZES: tuple[Size, ...] = get_args(Size)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
BACKGROUNDS: tuple[Background, ...] = get_args(Background)

NEW_COLOUR: Colour = "pink"
"""Drawn only where it is asked for, so that something is left to be learnt later."""

NEW_SHAPE: Shape = "heart"
"""The same among the shapes."""


class Thing(StrictModel):
    """One thing that is seen and heard."""

    colour: Colour
    shape: Shape
    size: Size
    motion: Motion
    x: float = Field(description="where it starts; centre of the path of circle")
    y: float = Field(description="likewise; of bounce, where it touches the floor")
    speed: float = Field(
        default=0.0,
        ge=0,
        description="frames crossed per second; of circle turns and of bounce bounces per second",
    )
    phase: float = Field(default=0.0, description="share of a turn or bounce done at the start")


class Scene(StrictModel):
    """A background and the things before it; later ones are in front."""

    background: Background
    things: tuple[Thing, ...] = Field(min_length=1, max_length=2)


def is_held_out(colour: Colour, shape: Shape, motion: Motion) -> bool:
    """Whether a combination is kept from training: about one of seven.

    Colour and motion, or shape and motion, determine at most one that is held out, and colour and
    shape at most two: every value, and every pair of values, stays common in training.
    """
    place = COLOURS.index(colour) + 2 * SHAPES.index(shape) + 3 * MOTIONS.index(motion)
    return place % 7 == 0
