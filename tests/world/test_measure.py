"""What is measured of clips is what was drawn."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from rayreel.media.mux import write_clip
from rayreel.media.video import read_clip
from rayreel.world.dataset import Format, make_clip
from rayreel.world.draw import draw
from rayreel.world.measure.compare import compare
from rayreel.world.measure.picture import measure_picture
from rayreel.world.measure.sound import measure_sound
from rayreel.world.motion import bounce_times
from rayreel.world.palette import PITCH_HZ
from rayreel.world.prompts import Asked
from rayreel.world.sampling import sample_scene
from rayreel.world.scene import COLOURS, MOTIONS, SHAPES, SIZES, Scene, Thing
from rayreel.world.sound import LOUDNESS, sound
from tests.world.degraded import FORM, degraded

RATE = FORM.sample_rate_hz
DURATION_S = FORM.num_frames / FORM.fps


def asked(scene, *, named=True):
    return Asked(prompt="", scene=scene, names_size=named, names_background=named)


def judged(wanted, clip):
    assert clip.audio
    return compare(wanted, clip.frames, clip.fps, clip.audio.waveform, clip.audio.sample_rate_hz)


def shares(scenes):
    """How often each attribute is confirmed, of clips of scenes that are degraded."""
    found = defaultdict(list)
    for seed, scene in enumerate(scenes):
        verdict = compare(asked(scene), *degraded_clip(scene, seed))
        for thing in verdict.things:
            for name in ("colour", "shape", "motion", "size", "pitch"):
                found[name].append(getattr(thing, name))
        found["count"].append(verdict.count)
        found["background"].append(verdict.background)
        if verdict.synchrony_s is not None:
            found["synchrony"].append(verdict.synchrony_s < 0.03)
    return {name: sum(values) / len(values) for name, values in found.items()}


def degraded_clip(scene, seed):
    frames, samples = degraded(scene, seed)
    return frames, FORM.fps, samples, RATE


def still(**values):
    defaults = {"colour": "red", "shape": "circle", "size": "medium", "motion": "still"}
    return Thing(**(defaults | {"x": 0.5, "y": 0.5} | values))


def alone(thing, background="black"):
    return Scene(background=background, things=(thing,))


@pytest.mark.parametrize("new", [False, True])
def test_one_thing_is_measured_as_it_was_drawn(new):
    scenes = [sample_scene(f"one/{n}", things=1, split="all", new=new) for n in range(40)]
    assert min(shares(scenes).values()) >= 0.99


@pytest.mark.parametrize("new", [False, True])
def test_two_things_are_measured_as_they_were_drawn(new):
    scenes = [sample_scene(f"two/{n}", things=2, split="all", new=new) for n in range(24)]
    assert min(shares(scenes).values()) >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("things", "least"), [(1, 0.99), (2, 0.97)])
def test_hundreds_of_clips_are_measured_as_they_were_drawn(things, least):
    scenes = [
        sample_scene(f"many/{n}", things=things, split="all", new=n % 3 == 0) for n in range(100)
    ]
    assert min(shares(scenes).values()) >= least


def test_bounces_and_clicks_are_found_to_hundredths_of_a_second():
    scenes = [sample_scene(f"bounce/{n}", things=1) for n in range(150)]
    jumping = [scene for scene in scenes if scene.things[0].motion == "bounce"]
    assert len(jumping) > 10
    for seed, scene in enumerate(jumping):
        frames, _, samples, _ = degraded_clip(scene, seed)
        times = np.array(bounce_times(scene.things[0], DURATION_S))
        certain = times[(times > 0.08) & (times < DURATION_S - 0.1)]
        seen = np.array(measure_picture(frames, FORM.fps).things[0].bounces_s)
        heard = np.array(measure_sound(samples, RATE).clicks_s)
        for found in (seen, heard):
            assert np.abs(found[:, None] - certain).min(0).max() < 0.01
            assert len(found) <= len(times)


def test_files_are_measured_as_they_were_drawn(tmp_path):
    for n in range(12):
        scene = sample_scene(f"file/{n}", new=n % 3 == 0)
        write_clip(tmp_path / "clip.mp4", make_clip(scene, FORM), crf=26)
        verdict = judged(asked(scene), read_clip(tmp_path / "clip.mp4"))
        assert verdict.right
        assert verdict.background
        assert all(thing.pitch and thing.size for thing in verdict.things)
        assert verdict.synchrony_s is None or verdict.synchrony_s < 0.03


@pytest.mark.parametrize(
    "form", [Format(width=192, height=128), Format(width=96, height=160), Format(num_frames=97)]
)
def test_other_sizes_and_lengths_are_measured_too(form):
    for n in range(10):
        scene = sample_scene(f"form/{n}", things=1)
        verdict = judged(asked(scene), make_clip(scene, form))
        assert verdict.right, scene
        assert all(thing.pitch and thing.size for thing in verdict.things)


@pytest.mark.parametrize(
    ("name", "values"),
    [("colour", COLOURS), ("shape", SHAPES), ("size", SIZES), ("motion", MOTIONS)],
)
def test_what_was_not_asked_for_is_not_confirmed(name, values):
    drawn = alone(still(speed=1.5 if name == "motion" else 0))
    clip = make_clip(drawn, FORM)
    for value in values:
        wanted = alone(drawn.things[0].model_copy(update={name: value}))
        verdict = judged(asked(wanted), clip)
        same = value == getattr(drawn.things[0], name)
        assert getattr(verdict.things[0], name) == same
        assert verdict.right == (same or name == "size")
        assert verdict.things[0].pitch == (same or name != "colour")


def test_another_background_is_not_confirmed_but_where_any_will_do():
    clip = make_clip(alone(still(), "grey"), FORM)
    assert judged(asked(alone(still(), "brown")), clip).background is False
    free = asked(alone(still(), "brown"), named=False)
    assert judged(free, clip).background is None
    assert judged(free, clip).things[0].size is None


def test_a_thing_too_many_or_too_few_is_told():
    pair = Scene(background="white", things=(still(x=0.25), still(colour="blue", x=0.75)))
    two, one = make_clip(pair, FORM), make_clip(alone(still(x=0.25), "white"), FORM)
    extra = judged(asked(alone(still(x=0.25))), two)
    assert extra.things[0].shape
    assert not extra.things[0].colour
    assert not extra.count
    assert not extra.right
    missing = judged(asked(pair), one)
    assert [thing.colour for thing in missing.things] == [True, False]
    assert not missing.things[1].shape


def test_a_thing_of_the_wrong_colour_is_still_judged_by_shape_and_motion():
    clip = make_clip(alone(still(colour="green", shape="star")), FORM)
    verdict = judged(asked(alone(still(shape="star"))), clip)
    assert not verdict.things[0].colour
    assert verdict.things[0].shape
    assert verdict.things[0].motion


def test_a_bounce_without_its_click_is_out_of_step():
    jumping = alone(still(motion="bounce", y=0.7, speed=2.0, phase=0.2))
    silent = sound(alone(still()), seconds=DURATION_S, rate=RATE)
    late = sound(
        alone(still(motion="bounce", y=0.7, speed=2.0, phase=0.0)), seconds=DURATION_S, rate=RATE
    )
    frames = make_clip(jumping, FORM).frames
    assert compare(asked(jumping), frames, 24, silent, RATE).synchrony_s == math.inf
    assert compare(asked(jumping), frames, 24, late, RATE).synchrony_s == pytest.approx(
        0.1, abs=0.01
    )


def test_noise_and_plain_frames_show_nothing():
    noise = torch.randint(0, 256, (25, 128, 128, 3), generator=torch.Generator().manual_seed(0))
    assert measure_picture(noise.to(torch.uint8), 24.0).things == ()
    plain = draw(alone(still()), width=128, height=128, num_frames=25, fps=24)[:, :1, :1]
    assert measure_picture(plain.expand(25, 128, 128, 3), 24.0).things == ()


def test_other_shapes_are_none_of_those_that_are_drawn():
    y, x = np.mgrid[:128, :128] - 63.5
    ring = np.abs(np.hypot(x, y) - 16) < 4
    bar = (np.abs(x) < 5) & (np.abs(y) < 25)
    for cover in (ring, bar):
        frames = np.full((25, 128, 128, 3), 18, np.uint8)
        frames[:, cover] = (224, 40, 40)
        (thing,) = measure_picture(torch.from_numpy(frames), 24.0).things
        assert thing.shape is None


def test_jerks_are_no_motion():
    places = np.random.default_rng(1).uniform(0.3, 0.7, (25, 2))
    things = [still(x=x, y=y) for x, y in places]
    frames = torch.cat(
        [draw(alone(it), width=128, height=128, num_frames=1, fps=24) for it in things]
    )
    (thing,) = measure_picture(frames, 24.0).things
    assert thing.motion is None


def test_silence_and_hiss_have_no_tones_and_no_clicks():
    hiss = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0)) * 0.001
    for samples in (torch.zeros(2, RATE), hiss):
        heard = measure_sound(samples, RATE)
        assert heard.tones == ()
        assert heard.clicks_s == ()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_tone_is_measured_with_its_loudness_and_its_place(colour):
    samples = sound(alone(still(colour=colour, x=0.3)), seconds=1.0, rate=RATE)
    (tone,) = measure_sound(samples, RATE).tones
    assert tone.colour == colour
    assert tone.hertz == pytest.approx(PITCH_HZ[colour], abs=2)
    assert tone.loudness == pytest.approx(LOUDNESS["medium"], rel=0.05)
    assert tone.pan == pytest.approx(0.3, abs=0.02)


def test_what_is_no_clip_is_refused():
    with pytest.raises(ValueError, match=r"expected frames \(T, H, W, 3\)"):
        measure_picture(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), 24.0)
    with pytest.raises(ValueError, match=r"expected samples \(2, N\)"):
        measure_sound(torch.zeros(1, 100), RATE)
