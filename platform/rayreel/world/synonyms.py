"""Words of people who do not know those of the world's captions, by what they mean in it."""

from rayreel.world.scene import Background, Colour, Motion, Shape, Size

NOUNS: dict[Shape, tuple[str, ...]] = {
    "circle": (
        *("sphere", "orb", "round shape", "circular shape", "bubble", "round thing", "coin"),
        *("marble", "circle shape", "round ball", "bouncy ball", "filled circle", "spot"),
    ),
    "square": (
        *("cube", "square shape", "tile", "brick", "rectangle", "square box", "quadrilateral"),
        *("square block", "filled square", "crate"),
    ),
    "triangle": (
        *("triangular shape", "pyramid", "wedge", "triangle shape", "filled triangle", "cone"),
        *("three-sided shape", "arrowhead"),
    ),
    "star": (
        *("star shape", "5-pointed star", "5 pointed star", "five pointed star", "starlet"),
        *("filled star", "star-shaped thing", "pentagram", "star with five points"),
    ),
    "heart": ("love heart", "heart symbol", "heart-shaped thing", "valentine heart", "heart sign"),
}

SIZES: dict[Size, tuple[str, ...]] = {
    "small": ("mini", "wee", "minuscule", "smallish", "very small", "small-sized", "teeny"),
    "medium": (
        *("middle-sized", "medium size", "average-sized", "regular-sized", "normal-sized"),
        *("mid-size", "moderately sized", "not too big"),
    ),
    "large": (
        "giant",
        "enormous",
        "massive",
        "great big",
        "very large",
        "large-sized",
        "oversized",
    ),
}

COLOURS: dict[Colour, tuple[str, ...]] = {
    "red": ("bright red", "crimson", "scarlet", "vivid red", "deep red"),
    "orange": ("bright orange", "tangerine", "vivid orange"),
    "yellow": ("bright yellow", "golden", "lemon yellow", "golden yellow"),
    "green": ("bright green", "emerald", "vivid green", "grass green"),
    "blue": ("bright blue", "azure", "navy blue", "royal blue"),
    "purple": ("violet", "bright purple", "deep purple", "lilac"),
    "pink": ("hot pink", "bright pink", "magenta", "rose pink"),
}

BACKGROUNDS: dict[Background, tuple[str, ...]] = {
    "black": ("pitch black", "pure black", "jet black", "solid black"),
    "grey": ("dull grey", "neutral gray", "solid gray", "light grey", "mid-grey"),
    "white": ("pure white", "clean white", "solid white", "blank white"),
    "brown": ("dark brown", "solid brown", "brownish", "tan", "earthy brown"),
}

PLACES = ("screen", "canvas", "wall", "scene", "surface", "field", "area", "bg", "backing")

# Finite form and participle.
_GOES = (
    *(("heads", "heading"), ("rolls", "rolling"), ("sails", "sailing"), ("shifts", "shifting")),
    *(("runs", "running"), ("scrolls", "scrolling"), ("zooms", "zooming"), ("dashes", "dashing")),
    *(("shoots", "shooting"), ("wanders", "wandering"), ("passes", "passing")),
    *(("is moving", "in motion"), ("keeps moving", "moving steadily"), ("speeds", "speeding")),
    *(("makes its way", "making its way"), ("swims", "swimming"), ("walks", "walking")),
    *(("moves", "moving"), ("goes", "going"), ("travels", "traveling"), ("crawls", "crawling")),
)


def _going(tails: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{one} {tail}", f"{other} {tail}") for one, other in _GOES for tail in tails)


ACTIONS: dict[Motion, tuple[tuple[tuple[str, str], ...], ...]] = {
    "left": (
        _going(
            (
                *("to the left side", "toward the left", "towards the left edge", "left"),
                *("to the left", "sideways to the left", "leftward", "leftwards", "to its left"),
                *("across the screen from right to left", "from the right side to the left side"),
                *("to the left of the frame", "from right to left", "to the left over and over"),
            )
        ),
    ),
    "right": (
        _going(
            (
                *("to the right side", "toward the right", "towards the right edge", "right"),
                *("to the right", "sideways to the right", "rightward", "rightwards"),
                *("across the screen from left to right", "from the left side to the right side"),
                *("to the right of the frame", "from left to right", "to its right"),
            )
        ),
    ),
    "up": (
        _going(
            (
                *("up", "upward", "upwards", "to the top", "toward the top", "up the screen"),
                *("to the top of the frame", "from the bottom up", "vertically up", "skyward"),
                *("up and away", "from below to above"),
            )
        ),
        (
            *(("ascends", "ascending"), ("lifts", "lifting"), ("levitates", "levitating")),
            *(("soars", "soaring"), ("rises upward", "rising upward"), ("rises up", "rising up")),
            *(("climbs to the top", "climbing to the top"), ("floats up", "floating up")),
            *(("takes off", "taking off"), ("goes higher and higher", "going higher and higher")),
        ),
    ),
    "down": (
        _going(
            (
                *("down", "downward", "downwards", "to the bottom", "toward the bottom"),
                *("down the screen", "to the bottom of the frame", "from the top down"),
                *("vertically down", "from above to below", "to the ground"),
            )
        ),
        (
            *(("drops", "dropping"), ("plunges", "plunging"), ("plummets", "plummeting")),
            *(
                ("lowers", "lowering"),
                ("comes down", "coming down"),
                ("sinks down", "sinking down"),
            ),
            *(("drops down", "dropping down"), ("falls down", "falling down")),
            *(("tumbles down", "tumbling down"), ("goes lower and lower", "going lower and lower")),
        ),
    ),
    "circle": (
        (
            *(("orbits", "orbiting"), ("revolves", "revolving"), ("moves round", "moving round")),
            *(
                ("loops", "looping"),
                ("loops around", "looping around"),
                ("goes round", "going round"),
            ),
            *(("spins around a point", "spinning around a point"), ("whirls", "whirling")),
            *(("runs in circles", "running in circles"), ("swirls around", "swirling around")),
            *(("follows a circular path", "following a circular path"),),
            *(("travels round in a ring", "travelling round in a ring"),),
            *(("moves in a circular motion", "in a circular motion"),),
            *(("rotates around the centre", "rotating around the centre"),),
            *(("goes around and around", "going around and around"),),
            *(("makes circles", "making circles"), ("moves along a circle", "on a circular path")),
            *(("circles around a point", "circling around a point"), ("turns in a circle",) * 2),
            *(("traces a circle", "tracing a circle"), ("flies in loops", "flying in loops")),
        ),
    ),
    "bounce": (
        (
            *(("bounces like a rubber ball", "bouncing like a rubber ball"), ("leaps", "leaping")),
            *(("jumps up and down", "jumping up and down"), ("springs up and down", "springing")),
            *(("keeps hopping", "hopping again and again"), ("keeps jumping", "jumping")),
            *(("bobs up and down", "bobbing up and down"), ("dribbles", "dribbling")),
            *(("bounces off the floor", "bouncing off the floor"),),
            *(
                ("bounces on the ground", "bouncing on the ground"),
                ("hops around", "hopping around"),
            ),
            *(
                ("keeps bouncing", "bouncing repeatedly"),
                ("bounces vertically", "bouncing vertically"),
            ),
            *(("is bouncing", "bouncing"), ("hops", "hopping"), ("jumps", "jumping")),
            *(("bounces over and over", "bouncing over and over"),),
            *(("hits the floor and bounces", "hitting the floor and bouncing"),),
        ),
    ),
    "grow": (
        (
            *(("gets bigger and bigger", "getting bigger and bigger"), ("inflates", "inflating")),
            *(("enlarges", "enlarging"), ("scales up", "scaling up"), ("balloons", "ballooning")),
            *(("becomes larger", "becoming larger"), ("grows in size", "growing in size")),
            *(("gets larger over time", "getting larger over time"), ("swells up", "swelling up")),
            *(("puffs up", "puffing up"), ("is increasing in size", "increasing in size")),
            *(("gets larger and larger", "getting larger and larger"), ("widens", "widening")),
            *(("doubles in size", "doubling in size"), ("becomes huge", "becoming huge")),
            *(("grows", "growing"), ("expands", "expanding"), ("gets bigger", "getting bigger")),
            *(("blows up like a balloon", "blowing up like a balloon"), ("is growing",) * 2),
        ),
    ),
    "still": (
        (
            *(("is static", "static"), ("stays put", "staying put"), ("is frozen", "frozen")),
            *(("is stationary", "stationary"), ("does nothing", "doing nothing")),
            *(("is fixed in place", "fixed in place"), ("stands there", "standing there")),
            *(("sits still", "sitting still"), ("keeps still", "keeping still")),
            *(("hangs motionless", "hanging motionless"), ("sits there", "sitting there")),
            *(("remains in place", "remaining in place"), ("is at rest", "at rest")),
            *(("is motionless", "motionless"), ("is not moving", "without moving")),
            *(
                ("stays in the same place", "staying in the same place"),
                ("lies still", "lying still"),
            ),
            *(("doesn't move", "not moving at all"), ("is just there", "just sitting there")),
            *(("doesn't move at all", "that isn't moving"), ("stays unmoved", "unmoving")),
        ),
    ),
}
"""By motion, kinds of ways to say it, which are equally frequent."""

OPENINGS = (
    *("please show ", "can you draw ", "i want ", "i would like ", "i'd like ", "give me "),
    *("create ", "generate ", "make ", "make a video of ", "animate ", "imagine ", "picture "),
    *("a simple animation of ", "a minimal clip with ", "video: ", "scene: ", "a loop of "),
    *("here is ", "in this clip, ", "nothing but ", "just ", "only ", "an animation with "),
    *("could you make ", "we can see ", "a gif of ", "let there be ", "there's ", "footage of "),
    *("a short film of ", "two seconds of ", "object: ", "a drawing of ", "an image of ", "so, "),
)
"""Of a sentence that goes on with a thing."""

ENDINGS = (
    *(", please", ", simple style", ", flat design", ", 2d animation", ", minimalist", "!", "..."),
    *(" in the middle", " over and over", " for one second", ", looped", " slowly", " quickly"),
    *(" smoothly", " at a steady pace", ", no text", ", nothing else", ", flat colours", "?"),
    *(", plain and simple", ", cartoon style", " on the left", " on the right", " in the centre"),
    *(" at the top", " at the bottom", " all the time", ", high quality", " during the whole clip"),
)
"""What is said beside and means nothing here."""
