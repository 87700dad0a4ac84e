"""Words that captions are made of."""

from typing import NamedTuple

from rayreel.world.scene import Background, Colour, Motion, Shape, Size


class Verb(NamedTuple):
    """One verb in the forms that sentences need: things ``move``, one ``moves``, one ``moving``."""

    plural: str
    finite: str
    participle: str


class Action(NamedTuple):
    """Ways to say a motion: any of the verbs with any of the tails."""

    verbs: tuple[Verb, ...]
    tails: tuple[str, ...] = ("",)


NOUNS: dict[Shape, tuple[str, ...]] = {
    "circle": ("circle", "circle", "ball", "ball", "disc", "dot"),
    "square": ("square", "square", "square", "box", "block"),
    "triangle": ("triangle",),
    "star": ("star", "star", "star", "five-pointed star"),
    "heart": ("heart", "heart", "heart", "heart shape"),
}
"""Names of shapes; those that are used more often, more than once."""

SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium-sized", "medium", "mid-sized"),
    "large": ("large", "large", "big", "big", "huge"),
}

BACKGROUND_WORDS: dict[Background, tuple[str, ...]] = {
    "black": ("black", "black", "dark", "plain black"),
    "grey": ("grey", "gray", "plain grey"),
    "white": ("white", "white", "bright white", "plain white"),
    "brown": ("brown", "brown", "plain brown"),
}

BACKGROUND_NOUNS = ("background", "background", "background", "backdrop")

_CROSSING = tuple(
    Verb(plural, finite, participle)
    for plural, finite, participle in (
        ("move", "moves", "moving"),
        ("move", "moves", "moving"),
        ("drift", "drifts", "drifting"),
        ("slide", "slides", "sliding"),
        ("glide", "glides", "gliding"),
        ("travel", "travels", "travelling"),
        ("float", "floats", "floating"),
        ("go", "goes", "going"),
        ("fly", "flies", "flying"),
    )
)

ACTIONS: dict[Motion, tuple[Action, ...]] = {
    "left": (
        Action(
            _CROSSING,
            (
                *(
                    "to the left",
                    "to the left",
                    "left",
                    "leftwards",
                    "leftward",
                    "towards the left",
                ),
                *(
                    "from right to left",
                    "from the right to the left",
                    "across the frame to the left",
                ),
            ),
        ),
    ),
    "right": (
        Action(
            _CROSSING,
            (
                *("to the right", "to the right", "right", "rightwards", "rightward"),
                *("towards the right", "from left to right", "from the left to the right"),
                "across the frame to the right",
            ),
        ),
    ),
    "up": (
        Action(
            _CROSSING,
            (
                *("up", "up", "upwards", "upward", "straight up", "towards the top"),
                *("from bottom to top", "from the bottom to the top"),
            ),
        ),
        Action((Verb("rise", "rises", "rising"), Verb("climb", "climbs", "climbing"))),
    ),
    "down": (
        Action(
            _CROSSING,
            (
                *("down", "down", "downwards", "downward", "straight down", "towards the bottom"),
                *("from top to bottom", "from the top to the bottom"),
            ),
        ),
        Action(
            (
                Verb("sink", "sinks", "sinking"),
                Verb("fall", "falls", "falling"),
                Verb("descend", "descends", "descending"),
            )
        ),
    ),
    "circle": (
        Action(
            (
                Verb("move", "moves", "moving"),
                Verb("go", "goes", "going"),
                Verb("travel", "travels", "travelling"),
                Verb("glide", "glides", "gliding"),
                Verb("fly", "flies", "flying"),
            ),
            (
                *("in a circle", "in a circle", "in circles", "around in a circle"),
                *("round and round", "around in circles", "along a circular path", "in a loop"),
            ),
        ),
        Action((Verb("circle", "circles", "circling"),), ("around", "round and round")),
    ),
    "bounce": (
        Action(
            (
                Verb("bounce", "bounces", "bouncing"),
                Verb("bounce", "bounces", "bouncing"),
                Verb("hop", "hops", "hopping"),
                Verb("jump", "jumps", "jumping"),
            ),
            ("up and down", "up and down", "on the spot", "in place"),
        ),
        Action(
            (
                Verb("bounce", "bounces", "bouncing"),
                Verb("keep bouncing", "keeps bouncing", "bouncing again and again"),
            )
        ),
    ),
    "grow": (
        Action(
            (
                Verb("grow", "grows", "growing"),
                Verb("grow", "grows", "growing"),
                Verb("swell", "swells", "swelling"),
                Verb("expand", "expands", "expanding"),
                Verb("get bigger", "gets bigger", "getting bigger"),
                Verb("get larger", "gets larger", "getting larger"),
                Verb("become bigger", "becomes bigger", "becoming bigger"),
                Verb("grow larger", "grows larger", "growing larger"),
                Verb(
                    "grow bigger and bigger", "grows bigger and bigger", "growing bigger and bigger"
                ),
                Verb("increase in size", "increases in size", "increasing in size"),
            )
        ),
    ),
    "still": (
        Action(
            (
                Verb("stay still", "stays still", "staying still"),
                Verb("stand still", "stands still", "standing still"),
                Verb("do not move", "does not move", "not moving"),
                Verb("rest", "rests", "resting"),
                Verb("stay in place", "stays in place", "staying in place"),
                Verb("remain still", "remains still", "remaining still"),
                Verb("hold still", "holds still", "holding still"),
                Verb("stay where they are", "stays where it is", "staying where it is"),
                Verb("sit motionless", "sits motionless", "sitting motionless"),
            )
        ),
    ),
}

_LOW, _MIDDLE, _HIGH = (
    ("low", "low", "deep"),
    ("medium-pitched", "mid-range"),
    ("high", "high-pitched"),
)

PITCH_WORDS: dict[Colour, tuple[str, ...]] = {
    "red": _LOW,
    "orange": _LOW,
    "yellow": _MIDDLE,
    "green": _MIDDLE,
    "blue": _HIGH,
    "purple": _HIGH,
    "pink": ("very high",),
}
"""How the tone of a colour is called."""

ADJECTIVES: dict[Motion, tuple[str, ...]] = {
    "up": ("rising",),
    "down": ("falling", "sinking"),
    "circle": ("circling",),
    "bounce": ("bouncing", "jumping"),
    "grow": ("growing", "expanding", "swelling"),
    "still": ("motionless", "stationary", "still"),
}
"""Motions in one word before a noun; those to the sides have none."""

TONES = ("tone", "tone", "steady tone", "note")

ONE_THING = (
    *("{a} {does}[ {before}]<{sound}>", "{a} {does}[ {before}]<{sound}>", "{a} {does}[ {before}]"),
    *("{a} {doing}[ {before}]<{sound}>", "{a} {doing}[ {before}]", "{a} that {does}[ {before}]"),
    *(
        "{bare} {doing}[ {before}]",
        "{bare} {doing}[, {place_bare}]",
        "{bare}, {doing}[, {place_bare}]",
    ),
    *("[{before}, ]{a} {does}<{sound}>", "[{before}, ]{a} is {doing}<{sound}>", "{a} is {doing}"),
    *("[{place}. ]{a} {does}", "{a} {does}[. the background is {backdrop}]"),
    *("[{before}, ]there is {a} that {does}", "there is {a} {doing}[ {before}]"),
    *("the {noun} is {looks} and {does}[. the background is {backdrop}]",),
    *("a {clip} of {a} {doing}[ {before}]<{sound}>", "a {clip} of {a} that {does}[ {before}]"),
    *("a {clip} shows {a} {doing}[ {before}]", "[{before}, ]we see {a} {doing}"),
    *("{show} {a} {doing}[ {before}]<{sound}>", "{show} {a} that {does}[ {before}]"),
)
"""Sentences about one thing. What is in [] is left out where the background is, and what is in <>
where the sound is."""

TWO_THINGS = (
    *("{a} {does} and {b} {b_does}[ {before}]", "{a} {does}, and {b} {b_does}[ {before}]"),
    *("{a} {does} while {b} {b_does}[ {before}]", "{a} {does} as {b} {b_does}[ {before}]"),
    *("[{before}, ]{a} {does} and {b} {b_does}", "[{before}, ]{a} {does} while {b} {b_does}"),
    *("while {a} {does}, {b} {b_does}", "{a} {does}. {b} {b_does}[. the background is {backdrop}]"),
    *("{a} {doing} and {b} {b_doing}[ {before}]", "{a} {doing}, {b} {b_doing}[, {place}]"),
    *(
        "{bare} {doing}, {b_bare} {b_doing}[, {place_bare}]",
        "{bare} {doing} and {b_bare} {b_doing}",
    ),
    *(
        "two things[ {before}]: {a} {doing}, and {b} {b_doing}",
        "[{place}. ]{a} {does}. {b} {b_does}",
    ),
    *("{a} {does}, next to {b} that {b_does}[ {before}]", "{a} {doing} next to {b} {b_doing}"),
    *("there is {a} that {does} and {b} that {b_does}[ {before}]",),
    *(
        "a {clip} of {a} {doing} and {b} {b_doing}[ {before}]",
        "{show} {a} {doing} and {b} {b_doing}",
    ),
    *("the {noun} is {looks} and {does}, and the {b_noun} is {b_looks} and {b_does}",),
)
"""Sentences about two things."""

ALIKE = (
    *("{a} and {b} {do}[ {before}]", "{a} and {b} both {do}[ {before}]"),
    *("[{before}, ]{a} and {b} {do}", "{a} and {b} {doing}[ {before}]"),
)
"""Sentences about two things with the same motion."""

BEFORE = ("on", "on", "on", "against", "in front of")

MOVING_THING = (
    *(
        "{a_moving}[ {before}]<{sound}>",
        "{moving}[, {place_bare}]",
        "there is {a_moving}[ {before}]",
    ),
    *("a {clip} of {a_moving}[ {before}]<{sound}>", "{show} {a_moving}[ {before}]"),
)
"""Sentences about one thing whose motion is an adjective."""

CLIPS = ("video", "clip", "short clip", "short video")
SHOW = ("show", "draw", "make a clip of", "show me")

SOUND_TAILS = (" with {tone}", ", with {tone}", " while {tone} plays", " as {tone} sounds")
"""Ends of a sentence about one thing."""

SOUND_SENTENCES = ("{tone} plays", "{tone} sounds", "{tone} is heard", "you hear {tone}")

TWO_SOUND_SENTENCES = ("{tone} and {b_tone} sound together", "you hear {tone} and {b_tone}")

TWO_ALIKE_SOUND_SENTENCES = ("two {pitch} tones sound together", "you hear two {pitch} tones")

CLICK_SENTENCES = (
    *("it clicks {landing}", "a click sounds {landing}", "there is a click {landing}"),
    *("{tone} plays, with a click {landing}", "you hear {tone}, and a click {landing}"),
)
"""Sentences about the sound of a single thing that bounces."""

LOUDER_SENTENCES = ("{tone} gets louder", "{tone} grows louder", "{tone} becomes louder and louder")
"""Sentences about the sound of a single thing that grows."""

LANDING = ("at each bounce", "at every bounce", "each time it lands", "on every bounce")
