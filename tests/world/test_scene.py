"""Which scenes there are, and which are kept from training."""

from collections import Counter
from itertools import product
from random import Random

import pytest

from rayreel.world.sampling import Split, sample_scene
from rayreel.world.scene import (
    COLOURS,
    MOTIONS,
    NEW_COLOUR,
    NEW_SHAPE,
    SHAPES,
    Scene,
    is_held_out,
)

OLD_COLOURS = [colour for colour in COLOURS if colour != NEW_COLOUR]
OLD_SHAPES = [shape for shape in SHAPES if shape != NEW_SHAPE]


def kinds(scene):
    return [(thing.colour, thing.shape, thing.motion) for thing in scene.things]


def test_about_a_seventh_of_the_combinations_is_held_out():
    combinations = [*product(OLD_COLOURS, OLD_SHAPES, MOTIONS)]
    assert sum(is_held_out(*one) for one in combinations) / len(combinations) == pytest.approx(
        1 / 7, abs=0.01
    )


@pytest.mark.parametrize(("pair", "most"), [((0, 1), 2), ((0, 2), 1), ((1, 2), 1)])
def test_every_pair_of_values_stays_common_in_training(pair, most):
    held = [one for one in product(OLD_COLOURS, OLD_SHAPES, MOTIONS) if is_held_out(*one)]
    assert max(Counter(tuple(one[i] for i in pair) for one in held).values()) == most


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("things", [1, 2])
def test_training_scenes_have_nothing_that_is_held_out_and_the_others_nothing_else(things, new):
    splits: tuple[tuple[Split, bool], ...] = (("train", False), ("held-out", True))
    for split, expected in splits:
        for seed in range(40):
            scene = sample_scene(seed, things=things, split=split, new=new)
            assert len(scene.things) == things
            assert {is_held_out(*kind) for kind in kinds(scene)} == {expected}


def test_what_is_new_is_drawn_where_it_is_asked_for_alone():
    def has_new(scene):
        return any(NEW_COLOUR in kind or NEW_SHAPE in kind for kind in kinds(scene))

    assert not any(has_new(sample_scene(seed, split="all")) for seed in range(100))
    assert all(has_new(sample_scene(seed, split="all", new=True)) for seed in range(100))


def test_all_values_are_drawn():
    things = [thing for seed in range(300) for thing in sample_scene(seed, things=1).things]
    for name, values in (("colour", OLD_COLOURS), ("shape", OLD_SHAPES), ("motion", MOTIONS)):
        counts = Counter(getattr(thing, name) for thing in things)
        assert counts.keys() == set(values)
        assert min(counts.values()) > 300 / len(values) / 2


def test_a_scene_depends_on_its_seed_alone():
    assert sample_scene("a/1") == sample_scene(Random("a/1"))
    assert len({sample_scene(seed).model_dump_json() for seed in range(50)}) == 50


def test_two_things_have_different_colours():
    scenes = [sample_scene(seed, things=2) for seed in range(100)]
    assert all(one.colour != other.colour for one, other in (scene.things for scene in scenes))


def test_a_scene_is_read_from_what_it_is_written_as():
    scene = sample_scene(7, things=2)
    assert Scene.model_validate_json(scene.model_dump_json()) == scene
