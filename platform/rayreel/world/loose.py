"""Sentences that say what a scene shows as people put it, and not as a generator does.

People write with other words, in another order, with things beside that mean nothing, and with
mistakes. Whoever only ever reads the generator's sentences learns these.
"""

import re
from collections.abc import Mapping
from random import Random

from rayreel.world import synonyms, words
from rayreel.world.captions import Caption, Sound
from rayreel.world.scene import Background, Scene, Thing

_OTHER_WORDS = 0.35
_ROUGH = 0.25

_REPLACED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("ball", "disc"), synonyms.NOUNS["circle"]),
    **dict.fromkeys(("box", "block"), synonyms.NOUNS["square"]),
    **dict.fromkeys(("small", "little", "tiny"), synonyms.SIZES["small"]),
    **dict.fromkeys(("medium-sized", "mid-sized"), synonyms.SIZES["medium"]),
    **dict.fromkeys(("large", "big", "huge"), synonyms.SIZES["large"]),
    **{str(colour): others for colour, others in synonyms.COLOURS.items()},
    "star": ("star shape",),
    "backdrop": synonyms.PLACES,
    "while": ("whilst", "as", "and at the same time", "meanwhile"),
    "and": ("&", "plus", "and also", "and then", "together with"),
    "moves": ("shifts", "heads", "keeps moving", "rolls"),
    "moving": ("shifting", "heading", "rolling", "in motion"),
    "shows": ("has", "features", "displays"),
}


def loose(scene: Scene, rng: Random) -> Caption:
    """A scene as people may put it."""
    names_size, names_background = rng.random() < 0.5, rng.random() < 0.5
    parts = [_thing(thing, rng, size=names_size) for thing in scene.things]
    joints = (" and ", ", ", "; ", ". ", " while ", " next to ", " with ", ", and ", " + ", " as ")
    text = rng.choice(joints).join(parts)
    if rng.random() < 0.3:
        text = rng.choice(synonyms.OPENINGS) + text
    sounds: tuple[Sound, ...] = ()
    if rng.random() < 0.2:
        said, sounds = _sound(scene.things[0], rng)
        text = f"{text}{said}"
    if names_background:
        text = _before(text, scene.background, rng)
    return Caption(
        text=text,
        names_size=names_size,
        names_background=names_background,
        sounds=frozenset(sounds),
    )


def _thing(thing: Thing, rng: Random, *, size: bool) -> str:
    own = rng.random() < 0.5
    noun = rng.choice(synonyms.NOUNS[thing.shape] if own else words.NOUNS[thing.shape])
    large = rng.choice((*words.SIZE_WORDS[thing.size], *synonyms.SIZES[thing.size]))
    colour = rng.choice(synonyms.COLOURS[thing.colour]) if rng.random() < 0.15 else thing.colour
    does, doing = _action(thing, rng)
    looks = f"{large} {colour}" if size else colour
    also = f" and {large}" if size else ""
    patterns = (
        *(f"a {looks} {noun} {doing}", f"a {looks} {noun} {does}", f"{looks} {noun} {doing}"),
        *(f"a {looks} {noun} that {does}", f"a {looks} {noun} which {does}"),
        *(f"{noun}, {colour}{also}, {doing}", f"a {noun} in {colour}{also}, {doing}"),
        *(f"the {noun} is {colour}{also}. it {does}", f"a {looks} {noun}. it {does}"),
        *(f"a {noun}. it is {colour}{also}. it {does}", f"{doing} {looks} {noun}"),
        *(f"one {looks} {noun}, {doing}", f"{looks} {noun}: {does}", f"{looks} {noun} {does}"),
        *(f"the {looks} {noun} {does}", f"a {noun} coloured {colour}{also} that {does}"),
        *(f"a {colour}{also} {noun} {doing}", f"a {looks} {noun} and it {does}"),
    )
    return rng.choice(patterns)


def _action(thing: Thing, rng: Random) -> tuple[str, str]:
    """Finite form and participle."""
    if rng.random() < 0.6:
        return rng.choice(rng.choice(synonyms.ACTIONS[thing.motion]))
    action = rng.choice(words.ACTIONS[thing.motion])
    verb, tail = rng.choice(action.verbs), rng.choice(action.tails)
    return f"{verb.finite} {tail}".rstrip(), f"{verb.participle} {tail}".rstrip()


def _sound(thing: Thing, rng: Random) -> tuple[str, tuple[Sound, ...]]:
    pitch = rng.choice(words.PITCH_WORDS[thing.colour])
    tone = f"a {pitch} {rng.choice((*words.TONES, 'sound', 'hum', 'beep'))}"
    if thing.motion == "bounce" and rng.random() < 0.6:
        clicks = (
            *("with a click each time", "and you can hear it click", "it clicks when it lands"),
            *("clicking on every bounce", "sound: clicks"),
        )
        return f", {rng.choice(clicks)}", ("click",)
    if thing.motion == "grow" and rng.random() < 0.6:
        return rng.choice((f", with {tone} that gets louder", f", {tone} gets louder")), (
            "tone",
            "louder",
        )
    return rng.choice(
        (f", with {tone}", f". {tone} is heard", f", sound: {tone}", f" to {tone}")
    ), ("tone",)


def _before(text: str, background: Background, rng: Random) -> str:
    """A text with the background named in it."""
    own = rng.random() < 0.3
    options = synonyms.BACKGROUNDS if own else words.BACKGROUND_WORDS
    colour = rng.choice(options[background])
    nouns = synonyms.PLACES if rng.random() < 0.4 else words.BACKGROUND_NOUNS
    place = f"{colour} {rng.choice(nouns)}"
    patterns = (
        *(f"{text} on {colour}", f"{text} against {colour}", f"{text} over {colour}"),
        *(f"{text} with a {place}", f"{text} on a {place}", f"{text} against a {place}"),
        *(f"{text}, {place}", f"{text}. {place}", f"{text}, the background is {colour}"),
        *(f"{text}. background: {colour}", f"background: {colour}. {text}", f"{place}, {text}"),
        *(f"background {colour}, {text}", f"a {place} with {text}", f"on a {place}, {text}"),
        *(f"{text} over a {place}", f"{text} in front of a {place}", f"on {colour}: {text}"),
        *(f"{text} across a {place}", f"before a {place} {text}", f"{text} in a {place}"),
    )
    return rng.choice(patterns)


def rough(text: str, rng: Random) -> str:
    """A text with other words of the same meaning, words beside, and mistakes."""
    if rng.random() < 0.5:
        replaced = "|".join(sorted(_REPLACED, key=len, reverse=True))
        text = re.sub(
            rf"(?<![\w-])({replaced})(?![\w-])",
            lambda found: (
                rng.choice(_REPLACED[found[0]]) if rng.random() < _OTHER_WORDS else found[0]
            ),
            text,
        )
    if rng.random() < 0.15:
        text = text.rstrip(".") + rng.choice(synonyms.ENDINGS)
    if rng.random() < _ROUGH:
        left_out = rng.choice((r"\b([Aa]n?|[Tt]he) ", r"[.,:;]", r"-"))
        text = re.sub(left_out, " " if left_out == "-" else "", text)
    return _mistyped(text, rng) if rng.random() < 0.05 else text


def _mistyped(text: str, rng: Random) -> str:
    """With two neighbouring letters the wrong way round, in the middle of a longer word."""
    longer = [found.start() for found in re.finditer(r"\w{6,}", text)]
    if not longer:
        return text
    at = rng.choice(longer) + rng.randint(1, 3)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
