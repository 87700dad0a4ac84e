"""Sentences that say what a scene shows, in many ways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from rayreel.world import words
from rayreel.world.scene import Scene, Thing

Sound = Literal["tone", "click", "louder"]
SOUNDS: tuple[Sound, ...] = get_args(Sound)

_HEARD: Mapping[Sound, str] = {
    "tone": r"\b(tones?|notes?)\b",
    "click": r"\bclicks?\b",
    "louder": r"\blouder\b",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What a scene shows in words, and which of those it may leave out it has.

    Colour, shape and motion of every thing are always named.

    Attributes:
        text: One sentence or more.
        names_size: Whether it names the sizes.
        names_background: Whether it names the background.
        sounds: What it says is heard.
    """

    text: str
    names_size: bool
    names_background: bool
    sounds: frozenset[Sound]


def caption(scene: Scene, rng: Random) -> str:
    """One of the many ways to say what a scene shows."""
    return describe(scene, rng).text


def describe(scene: Scene, rng: Random) -> Caption:
    """One of the many ways to say what a scene shows, with what it names."""
    names_size = rng.random() < 0.5
    pattern = rng.choice(_patterns(scene, rng))
    names_background = "[" in pattern and rng.random() < 0.7
    names_sound = rng.random() < 0.3
    said = _said(scene, rng, size=names_size)
    text = pattern
    if names_sound and len(scene.things) == 1 and "<" in pattern:
        said["sound"] = rng.choice(words.SOUND_TAILS).format_map(said)
    elif names_sound:
        text = f"{pattern}. {rng.choice(_sound_sentences(scene))}"
    text = re.sub(r"[\[\]]" if names_background else r"\[.*?\]", "", text)
    text = re.sub(r"[<>]" if "sound" in said else r"<.*?>", "", text)
    text = _styled(text.format_map(said), rng)
    return Caption(
        text=text,
        names_size=names_size,
        names_background=names_background,
        sounds=frozenset(
            sound for sound, heard in _HEARD.items() if re.search(heard, text, re.IGNORECASE)
        ),
    )


def _patterns(scene: Scene, rng: Random) -> tuple[str, ...]:
    if len(scene.things) == 1:
        has_adjective = scene.things[0].motion in words.ADJECTIVES
        return words.MOVING_THING if has_adjective and rng.random() < 0.15 else words.ONE_THING
    alike = scene.things[0].motion == scene.things[1].motion
    return words.ALIKE if alike and rng.random() < 0.5 else words.TWO_THINGS


def _sound_sentences(scene: Scene) -> tuple[str, ...]:
    pitches = [words.PITCH_WORDS[thing.colour] for thing in scene.things]
    if len(pitches) == 2:
        alike = pitches[0] == pitches[1]
        return words.TWO_ALIKE_SOUND_SENTENCES if alike else words.TWO_SOUND_SENTENCES
    if scene.things[0].motion == "bounce":
        return words.CLICK_SENTENCES
    return words.LOUDER_SENTENCES if scene.things[0].motion == "grow" else words.SOUND_SENTENCES


def _said(scene: Scene, rng: Random, *, size: bool) -> dict[str, str]:
    """What the names in patterns stand for: of the second thing, they begin with ``b``."""
    backdrop = rng.choice(words.BACKGROUND_WORDS[scene.background])
    place = f"{backdrop} {rng.choice(words.BACKGROUND_NOUNS)}"
    said = {
        "backdrop": backdrop,
        "place": _with_article(place),
        "place_bare": place,
        "before": f"{rng.choice(words.BEFORE)} {_with_article(place)}",
        "clip": rng.choice(words.CLIPS),
        "show": rng.choice(words.SHOW),
        "landing": rng.choice(words.LANDING),
    }
    for prefix, thing in zip(("", "b_"), scene.things, strict=False):
        names = _said_of(thing, rng, size=size)
        said |= {f"{prefix}{name}": text for name, text in names.items()}
        said["b" if prefix else "a"] = _with_article(names["bare"])
        said[f"{prefix}a_moving"] = _with_article(names["moving"])
    return said


def _said_of(thing: Thing, rng: Random, *, size: bool) -> dict[str, str]:
    noun = rng.choice(words.NOUNS[thing.shape])
    adjectives = [rng.choice(words.SIZE_WORDS[thing.size])] if size else []
    moving = [rng.choice(words.ADJECTIVES.get(thing.motion, ("",)))]
    pitch = rng.choice(words.PITCH_WORDS[thing.colour])
    action = rng.choice(words.ACTIONS[thing.motion])
    verb, tail = rng.choice(action.verbs), rng.choice(action.tails)
    return {
        "noun": noun,
        "looks": " and ".join([*adjectives, thing.colour]),
        "bare": " ".join([*adjectives, thing.colour, noun]),
        "moving": " ".join([*adjectives, *moving, thing.colour, noun]),
        "does": f"{verb.finite} {tail}".rstrip(),
        "doing": f"{verb.participle} {tail}".rstrip(),
        "do": f"{verb.plural} {tail}".rstrip(),
        "pitch": pitch,
        "tone": _with_article(f"{pitch} {rng.choice(words.TONES)}"),
    }


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _styled(text: str, rng: Random) -> str:
    """With a capital at the start of each sentence and a full stop, as most people write."""
    way = rng.random()
    if way < 0.2:
        return text if ". " not in text else f"{text}."
    if way < 0.22:
        return text.upper()
    text = ". ".join(sentence[0].upper() + sentence[1:] for sentence in text.split(". "))
    return text if way < 0.4 and ". " not in text else f"{text}."
