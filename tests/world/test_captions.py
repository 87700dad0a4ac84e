"""What captions say, and that they are not all alike."""

import re
from itertools import product
from random import Random

import pytest

from rayreel.world.captions import caption, describe
from rayreel.world.prompts import held_out_prompts
from rayreel.world.sampling import sample_scene
from rayreel.world.scene import SIZES, is_held_out
from rayreel.world.words import (
    ACTIONS,
    ADJECTIVES,
    ALIKE,
    BACKGROUND_WORDS,
    MOVING_THING,
    NOUNS,
    ONE_THING,
    SIZE_WORDS,
    TWO_THINGS,
)

SCENES = [sample_scene(seed, split="all", new=seed % 5 == 0) for seed in range(600)]
CAPTIONS = [describe(scene, Random(seed)) for seed, scene in enumerate(SCENES)]
PAIRS = [*zip(SCENES, CAPTIONS, strict=True)]


def says(text, words):
    return any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in words)


def motion_words(motion):
    verbs = [verb for action in ACTIONS[motion] for verb in action.verbs]
    forms = [form for verb in verbs for form in verb]
    return [*forms, *ADJECTIVES.get(motion, ())]


@pytest.mark.parametrize(("scene", "said"), PAIRS[::6])
def test_colour_shape_and_motion_of_everything_are_named(scene, said):
    for thing in scene.things:
        assert says(said.text, [thing.colour])
        assert says(said.text, NOUNS[thing.shape])
        assert says(said.text, motion_words(thing.motion))


def test_a_caption_tells_what_it_names():
    for scene, said in PAIRS:
        sizes = [word for size in SIZES for word in SIZE_WORDS[size]]
        named = [says(said.text, SIZE_WORDS[thing.size]) for thing in scene.things]
        assert all(named) if said.names_size else not says(said.text, set(sizes) - {"medium"})
        words = BACKGROUND_WORDS[scene.background]
        places = [f"{word} {noun}" for word, noun in product(words, ("background", "backdrop"))]
        places += [f"background is {word}" for word in words]
        assert says(said.text, places) == said.names_background


def test_captions_are_clean_text():
    for _, said in PAIRS:
        assert not re.search(r"[\[\]<>{}]|\s\s|\s[,.]|,,|\.\.|\ba [aeiou]", said.text)
        assert said.text == said.text.strip()


def test_captions_of_one_scene_differ():
    rng = Random(0)
    assert len({caption(SCENES[1], rng) for _ in range(100)}) > 90


def test_some_captions_leave_out_sizes_backgrounds_and_sound():
    for share in (
        sum(said.names_size for _, said in PAIRS) / len(PAIRS),
        sum(said.names_background for _, said in PAIRS) / len(PAIRS),
    ):
        assert 0.3 < share < 0.7
    assert 0.1 < sum(says(said.text, ["tone", "note", "click"]) for _, said in PAIRS) / 600 < 0.5


@pytest.mark.parametrize("pattern", [*ONE_THING, *MOVING_THING])
def test_sentences_about_one_thing_name_it_once(pattern):
    names = re.findall(r"\{(\w+)\}", pattern)
    assert len({"a", "a_moving", "moving", "bare", "noun"} & {*names}) == 1


@pytest.mark.parametrize("pattern", [*TWO_THINGS, *ALIKE])
def test_sentences_about_two_things_name_both(pattern):
    names = re.findall(r"\{(\w+)\}", pattern)
    assert {"a", "bare", "noun"} & {*names}
    assert {"b", "b_bare", "b_noun"} & {*names}


def test_prompts_ask_for_what_training_never_has():
    prompts = held_out_prompts(20, seed=1)
    assert prompts[:10] == held_out_prompts(10, seed=1)
    assert len({asked.prompt for asked in prompts}) == 20
    for asked in prompts:
        for thing in asked.scene.things:
            assert is_held_out(thing.colour, thing.shape, thing.motion)
            assert says(asked.prompt, [thing.colour])
