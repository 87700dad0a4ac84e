"""Verdicts of clips are those of what they show and sound like."""

import dataclasses
import json

import pytest
import torch

from rayreel.config.evaluate import BoundsSpec, EvalSpec, RenderedSuite
from rayreel.media.mux import write_clip
from rayreel.runs.evaluation.judge import Case, judge, judge_file
from rayreel.runs.evaluation.scenes import scenes, suite_rows
from rayreel.types import Audio
from rayreel.world.motion import TURN_RADIUS
from rayreel.world.prompts import held_out_prompts
from rayreel.world.scene import NEW_COLOUR, NEW_SHAPE, Scene, is_held_out
from tests.runs.evaluation.drawn import drawn
from tests.world.test_measure import alone, asked, still

JUMPING = still(motion="bounce", y=0.7, speed=2.0, phase=0.2)


def case(scene: Scene, **values) -> Case:
    values = {"suite": "one", "name": "one-0000", "identity": "a", **values}
    return Case(asked=asked(scene), **values)


def test_a_drawn_clip_is_right_in_all_that_was_asked_for(tmp_path):
    for one in held_out_prompts(6, 0):
        write_clip(tmp_path / "clip.mp4", drawn(one.scene))
        wanted = dataclasses.replace(case(one.scene), asked=one)
        found = judge_file(wanted, str(tmp_path / "clip.mp4"), "videos/clip.mp4")
        assert all(found.verdicts.values()), one
        assert ("size" in found.verdicts) == one.names_size
        assert ("background" in found.verdicts) == one.names_background
        assert ("synchrony" in found.verdicts) == any(
            thing.motion == "bounce" for thing in one.scene.things
        )


def test_what_is_wrong_is_told_by_attribute_and_thing():
    pair = Scene(background="white", things=(still(x=0.25), still(colour="blue", x=0.75)))
    shown = Scene(
        background="white", things=(still(x=0.25), still(colour="blue", shape="star", x=0.75))
    )
    found = judge(case(pair), drawn(shown), "clip.mp4")
    assert [one["shape"] for one in found.things] == [True, False]
    wrong = {name for name, right in found.verdicts.items() if not right}
    assert wrong == {"shape", "right"}
    assert [one["shape"] for one in found.seen[0].things] == ["circle", "star"]


def test_a_click_that_is_late_is_out_of_step():
    clip = drawn(alone(JUMPING))
    assert clip.audio
    on_time = judge(case(alone(JUMPING)), clip, "clip.mp4")
    assert on_time.verdicts["synchrony"]
    assert on_time.numbers["synchrony_ms"] < 30
    late = Audio(waveform=clip.audio.waveform.roll(2400, 1), sample_rate_hz=24000)
    found = judge(case(alone(JUMPING)), dataclasses.replace(clip, audio=late), "clip.mp4")
    assert not found.verdicts["synchrony"]
    assert found.numbers["synchrony_ms"] == pytest.approx(100, abs=15)


def test_silence_is_wrong_unless_no_sound_was_asked_for():
    silent = dataclasses.replace(drawn(alone(JUMPING)), audio=None)
    found = judge(case(alone(JUMPING)), silent, "clip.mp4")
    assert (found.verdicts["pitch"], found.verdicts["synchrony"]) == (False, False)
    assert "synchrony_ms" not in found.numbers
    without = judge(case(alone(JUMPING), sound=False), silent, "clip.mp4")
    assert all(without.verdicts.values())
    assert without.verdicts.keys().isdisjoint({"pitch", "synchrony"})


def test_every_part_of_a_clip_has_to_be_right():
    moving = alone(still(motion="right", speed=0.5))
    first, second = drawn(moving, 24), drawn(alone(still(colour="blue")), 24)
    both = dataclasses.replace(first, frames=torch.cat([first.frames, second.frames]))
    found = judge(case(moving, parts=2, sound=False), both, "clip.mp4")
    assert len(found.seen) == 2
    assert (found.verdicts["colour"], found.verdicts["motion"]) == (False, False)
    assert (found.verdicts["shape"], found.verdicts["background"]) == (True, True)
    long = judge(case(moving, parts=4), drawn(moving, 73), "clip.mp4")
    assert all(long.verdicts.values())


def test_given_frames_are_kept_if_they_are_alike():
    scene, given = alone(still(motion="left", speed=0.5)), ("first_frame", "last_frame")
    clip = drawn(scene)
    found = judge(case(scene, given=given), clip, "clip.mp4")
    assert found.verdicts["first_frame"]
    assert found.numbers["last_frame_psnr_db"] == 99
    clip.frames[-1] = clip.frames[0]
    assert found.numbers["last_frame_things_psnr_db"] == 99
    found = judge(case(scene, given=given), clip, "clip.mp4")
    assert (found.verdicts["first_frame"], found.verdicts["last_frame"]) == (True, False)
    lenient = case(scene, given=given, bounds=BoundsSpec(psnr_db=5))
    assert judge(lenient, clip, "clip.mp4").verdicts["last_frame"]


def test_a_frame_without_its_thing_is_not_kept():
    scene = alone(still(colour="green", size="small"), "grey")
    clip = drawn(scene)
    clip.frames[:, 20:] = 128
    found = judge(case(scene, given=("first_frame",)), clip, "clip.mp4")
    assert found.numbers["first_frame_psnr_db"] > 20
    assert not found.verdicts["first_frame"]


def test_the_size_of_what_grows_is_that_of_the_first_part():
    growing = alone(still(motion="grow"))
    found = judge(case(growing, parts=3), drawn(growing, 73), "clip.mp4")
    assert all(found.verdicts.values())


def test_a_reference_is_followed_by_what_moves_where_it_does():
    moving = still(motion="circle", x=0.5, y=0.5, speed=1.0)
    found = judge(case(alone(moving), given=("reference",)), drawn(alone(moving)), "clip.mp4")
    assert found.verdicts["reference"]
    assert found.numbers["distance"] < 0.01
    other = alone(moving.model_copy(update={"phase": 0.5}))
    found = judge(case(alone(moving), given=("reference",)), drawn(other), "clip.mp4")
    assert found.verdicts["motion"]
    assert not found.verdicts["reference"]
    assert found.numbers["distance"] == pytest.approx(2 * TURN_RADIUS, abs=0.02)
    gone = drawn(alone(moving.model_copy(update={"colour": "blue"})))
    found = judge(case(alone(moving), given=("reference",)), gone, "clip.mp4")
    assert not found.verdicts["reference"]
    assert "distance" not in found.numbers


def test_a_file_that_is_no_clip_is_a_fault(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    found = judge_file(case(alone(still())), str(tmp_path / "clip.mp4"), "videos/clip.mp4")
    assert "clip.mp4" in found.fault
    assert found.verdicts == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "b"},
        {"parts": 2},
        {"sound": False},
        {"given": ("reference",)},
        {"bounds": BoundsSpec(synchrony_s=0.1)},
        {"asked": asked(alone(still()), named=False)},
    ],
)
def test_whatever_changes_a_verdict_has_it_judged_again(changes):
    one = case(alone(still()))
    assert dataclasses.replace(one).key == one.key
    assert dataclasses.replace(one, **changes).key != one.key


def test_scenes_are_held_out_and_stay_the_same_as_a_suite_grows():
    few, many = (scenes(RenderedSuite(name="a", clips=n), 3) for n in (5, 20))
    assert many[:5] == few == held_out_prompts(5, 3)
    kinds = [(it.colour, it.shape, it.motion) for one in many for it in one.scene.things]
    assert all(is_held_out(*kind) for kind in kinds)
    trained = scenes(RenderedSuite(name="a", clips=20, split="train", things=2), 3)
    kinds = [(it.colour, it.shape, it.motion) for one in trained for it in one.scene.things]
    assert len(kinds) == 40
    assert not any(is_held_out(*kind) for kind in kinds)


@pytest.mark.parametrize(
    ("new", "there", "absent"),
    [("colour", NEW_COLOUR, NEW_SHAPE), ("shape", NEW_SHAPE, NEW_COLOUR)],
)
def test_a_suite_of_something_new_has_it_in_each_scene(new, there, absent):
    for one in scenes(RenderedSuite(name="a", clips=10, new=new), 0):
        said = {word for thing in one.scene.things for word in (thing.colour, thing.shape)}
        assert there in said
        assert absent not in said


def test_suites_that_choose_alike_differ_in_their_fields_alone():
    plain = RenderedSuite(name="plain", clips=3)
    fast = RenderedSuite.model_validate(
        {"name": "fast", "clips": 3, "request": {"steps": 4}, "given": ["first_frame"]}
    )
    rows = suite_rows(EvalSpec(suites=(plain, fast)))
    for one, other in zip(rows[:3], rows[3:], strict=True):
        extra = {key: other.values[key] for key in other.values.keys() - one.values.keys()}
        assert extra.keys() == {"steps", "images"}
        assert one.values | extra | {"id": other.name} == other.values
        assert json.dumps(other.values)
