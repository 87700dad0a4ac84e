"""Captions in words of people who have not read the generator, with what they mean."""

from typing import Any

from rayreel.training.pretraining.meaning import Meaning, SaidThing
from rayreel.world.captions import Sound
from rayreel.world.scene import SIZES, Background


def said(background: Background | None, *things: str, sounds: tuple[Sound, ...] = ()) -> Meaning:
    """A meaning; things are colour, shape and motion, after the size where that is said."""
    return Meaning(
        things=tuple(map(_thing, things)), background=background, sounds=frozenset(sounds)
    )


def _thing(words: str) -> SaidThing:
    *size, colour, shape, motion = words.split()
    fields: Any = {"colour": colour, "shape": shape, "motion": motion, "size": None}
    if size:
        (fields["size"],) = size
        assert fields["size"] in SIZES
    return SaidThing(**fields)


# Written before the wording that is trained with, and never changed after it was measured.
STRANGERS: dict[str, Meaning] = {
    "A red ball bouncing on a white background": said("white", "red circle bounce"),
    "blue square sliding left": said(None, "blue square left"),
    "a tiny yellow star floats upward against black": said("black", "small yellow star up"),
    "Big purple disc going around in circles, gray background.": said(
        "grey", "large purple circle circle"
    ),
    "an orange box is just sitting there": said(None, "orange square still"),
    "A red circle grows while a blue star falls": said(None, "red circle grow", "blue star down"),
    "I'd like a little green ball hopping": said(None, "small green circle bounce"),
    "a yellow star which moves from the left side to the right side": said(
        None, "yellow star right"
    ),
    "two shapes: a red square moving up and a blue circle moving down": said(
        None, "red square up", "blue circle down"
    ),
    "Green triangle, static, brown backdrop": said("brown", "green triangle still"),
    "A large orange triangle drops down the screen": said(None, "large orange triangle down"),
    "please show a purple square that gets bigger over time": said(None, "purple square grow"),
    "A ball. It is blue. It bounces.": said(None, "blue circle bounce"),
    "Background: black. Object: a red star moving left.": said("black", "red star left"),
    "small green star orbiting on a grey background": said("grey", "small green star circle"),
    "the yellow circle flies to the right over a dark background": said(
        "black", "yellow circle right"
    ),
    "a huge blue triangle rises": said(None, "large blue triangle up"),
    "purple ball bounces up and down, and you can hear it click": said(
        None, "purple circle bounce", sounds=("click",)
    ),
    "An animation of a red block travelling leftward on brown": said("brown", "red square left"),
    "a medium orange star, not moving at all, in front of a white background": said(
        "white", "medium orange star still"
    ),
    "green square expands, white bg": said("white", "green square grow"),
    "A yellow triangle and a purple circle both go right": said(
        None, "yellow triangle right", "purple circle right"
    ),
    "Can you make a blue ball roll from right to left?": said(None, "blue circle left"),
    "star shape, red, growing": said(None, "red star grow"),
    "tiny purple triangle jumping on a gray backdrop with a high sound": said(
        "grey", "small purple triangle bounce", sounds=("tone",)
    ),
    "An orange circle circles around. Black background.": said("black", "orange circle circle"),
    "There's a big green ball in the middle and it stays put": said(
        None, "large green circle still"
    ),
    "a white scene with a blue star drifting downwards": said("white", "blue star down"),
    "Yellow square heading up": said(None, "yellow square up"),
    "We see a small red triangle moving round in a circle": said(None, "small red triangle circle"),
    "a purple star sinks slowly to the bottom": said(None, "purple star down"),
    "a red triangle on the left jumps while a green square on the right stays still": said(
        None, "red triangle bounce", "green square still"
    ),
    "orange ball climbing to the top of the frame": said(None, "orange circle up"),
    "BLUE BOX MOVES RIGHT": said(None, "blue square right"),
    "little yellow dot goes left on a black background, low volume": said(
        "black", "small yellow circle left"
    ),
    "On a plain grey background a big red square swells up": said("grey", "large red square grow"),
    "motionless purple square": said(None, "purple square still"),
    "one green star bouncing and one orange circle growing larger": said(
        None, "green star bounce", "orange circle grow"
    ),
    "a short loop of a blue triangle moving sideways to the left": said(None, "blue triangle left"),
    "The star is yellow and large. It moves to the right.": said(None, "large yellow star right"),
    "draw a circle, green, medium size, that travels upwards on white": said(
        "white", "medium green circle up"
    ),
    "red ball falling": said(None, "red circle down"),
    "a brown background with an orange square which keeps bouncing": said(
        "brown", "orange square bounce"
    ),
    "purple triangle, getting larger and larger, with a tone that gets louder": said(
        None, "purple triangle grow", sounds=("tone", "louder")
    ),
    "A blue disc spins around a point in a circular motion": said(None, "blue circle circle"),
    "Small yellow box next to a large purple star; the box moves down, the star moves up": said(
        None, "small yellow square down", "large purple star up"
    ),
    "nothing but a green triangle moving to the left side": said(None, "green triangle left"),
    "A red star zooming rightwards across a grey screen": said("grey", "red star right"),
    "an orange triangle stands still, a blue circle hops next to it": said(
        None, "orange triangle still", "blue circle bounce"
    ),
    "5 pointed yellow star going in a loop against a brown wall": said(
        "brown", "yellow star circle"
    ),
}
