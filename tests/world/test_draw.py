"""Frames and sound of scenes."""

import numpy as np
import pytest
import torch

from rayreel.world.draw import draw, draw_outlines
from rayreel.world.motion import BOUNCE_HEIGHT, bounce_times, track
from rayreel.world.palette import BACKGROUND_RGB, PITCH_HZ, RADIUS, RGB
from rayreel.world.sampling import sample_scene
from rayreel.world.scene import MOTIONS, SHAPES, Scene, Thing
from rayreel.world.shapes import AREA, REACH
from rayreel.world.sound import sound


def thing(**values):
    defaults = {"colour": "red", "shape": "circle", "size": "medium", "motion": "still"}
    return Thing(**(defaults | {"x": 0.5, "y": 0.5} | values))


def scene(*things, background="black"):
    return Scene(background=background, things=things)


def frames_of(*things, width=128, height=128, num_frames=25, fps=24.0, background="black"):
    asked = scene(*things, background=background)
    return draw(asked, width=width, height=height, num_frames=num_frames, fps=fps)


def redness(frames):
    """How far each pixel is from the background to red, from 0 to 1."""
    background, red = BACKGROUND_RGB["black"][0], RGB["red"][0]
    return (frames[..., 0].float() - background) / (red - background)


def test_frames_have_the_background_and_the_colour_of_the_thing():
    frames = frames_of(thing(colour="green"), background="brown")
    assert frames.dtype == torch.uint8
    assert frames.shape == (25, 128, 128, 3)
    assert tuple(frames[0, 0, 0].tolist()) == BACKGROUND_RGB["brown"]
    assert tuple(frames[0, 64, 64].tolist()) == RGB["green"]


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (96, 160)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_area_and_its_centre_of_mass_at_its_place(shape, size):
    width, height = size
    cover = redness(frames_of(thing(shape=shape, x=0.4), width=width, height=height)[:1])[0]
    radius = RADIUS["medium"] * min(size)
    assert cover.sum() == pytest.approx(AREA[shape] * radius**2, rel=0.02)
    x = (cover.sum(0) * (torch.arange(width) + 0.5)).sum() / cover.sum()
    y = (cover.sum(1) * (torch.arange(height) + 0.5)).sum() / cover.sum()
    assert (float(x), float(y)) == pytest.approx((0.4 * width, 0.5 * height), abs=0.3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_does_not_reach_further_than_it_says(shape):
    cover = redness(frames_of(thing(shape=shape, size="large"), width=256, height=256)[:1])[0]
    rows, columns = (cover > 0.5).nonzero(as_tuple=True)
    reached = max(128 - int(rows.min()), 128 - int(columns.min()), int(rows.max()) - 127)
    assert reached <= REACH[shape] * RADIUS["large"] * 256 + 1
    assert reached >= REACH[shape] * RADIUS["large"] * 256 * 0.9


def test_what_leaves_the_frame_enters_on_the_other_side():
    at_edge = frames_of(thing(x=0.0))
    assert torch.equal(at_edge.roll(64, dims=2), frames_of(thing(x=0.5)))


def test_later_things_are_in_front():
    frames = frames_of(thing(colour="blue"), thing(colour="red"))
    assert tuple(frames[0, 64, 64].tolist()) == RGB["red"]


def test_the_frame_rate_does_not_change_where_things_are():
    moving = thing(motion="right", speed=0.5, x=0.1)
    slow, fast = frames_of(moving, num_frames=13, fps=12.0), frames_of(moving)
    assert torch.equal(slow, fast[::2])


@pytest.mark.parametrize("motion", MOTIONS)
def test_sampled_things_stay_within_the_frame_unless_they_cross_it(motion):
    scenes = [sample_scene(seed, things=1) for seed in range(200)]
    found = [one.things[0] for one in scenes if one.things[0].motion == motion]
    assert len(found) > 5
    for one in found:
        at = track(one, np.linspace(0, 1.04, 50))
        reach = at.radius * REACH[one.shape]
        if motion not in {"left", "right"}:
            assert ((at.x - reach > 0) & (at.x + reach < 1)).all()
        if motion not in {"up", "down"}:
            assert ((at.y - reach > 0) & (at.y + reach < 1)).all()


def test_things_move_as_they_are_called():
    times = np.array([0.0, 0.25])
    for motion, axis, sign in (("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)):
        at = track(thing(motion=motion, speed=0.4), times)
        assert at[axis][1] - at[axis][0] == pytest.approx(sign * 0.1)
        assert at[1 - axis][0] == at[1 - axis][1]
    grown = track(thing(motion="grow"), [0.0, 1.0]).radius
    assert grown[1] == pytest.approx(2 * grown[0])


def test_a_bounce_is_lowest_when_it_touches_the_floor():
    jumping = thing(motion="bounce", y=0.8, speed=2.0, phase=0.3)
    contacts = bounce_times(jumping, 2.0)
    assert contacts == pytest.approx([0.35, 0.85, 1.35, 1.85])
    assert track(jumping, contacts).y == pytest.approx(0.8)
    assert track(jumping, np.array(contacts) + 0.25).y.max() < 0.81 - BOUNCE_HEIGHT


def spectrum(samples, rate):
    """Hertz and loudness of what is heard on both sides together."""
    window = torch.hann_window(samples.shape[1])
    return torch.fft.rfftfreq(samples.shape[1], 1 / rate), torch.fft.rfft(samples * window).abs()


def test_tones_repeat_with_every_mel_frame_and_are_told_from_overtones():
    assert all(hertz % 100 == 0 for hertz in PITCH_HZ.values())
    for hertz in PITCH_HZ.values():
        overtones = [number * hertz for number in (2, 3)]
        ratios = [over / other for over in overtones for other in PITCH_HZ.values()]
        assert all(abs(ratio - 1) > 0.06 for ratio in ratios)


@pytest.mark.parametrize("colour", PITCH_HZ)
def test_the_loudest_tone_is_that_of_the_colour(colour):
    samples = sound(scene(thing(colour=colour)), seconds=1.0, rate=24000)
    hertz, loudness = spectrum(samples, 24000)
    assert samples.shape == (2, 24000)
    assert samples.dtype == torch.float32
    assert float(hertz[loudness.sum(0).argmax()]) == pytest.approx(PITCH_HZ[colour], abs=1)


def test_sound_comes_from_where_the_thing_is():
    left, right = sound(scene(thing(x=0.1)), seconds=1.0, rate=24000).square().mean(1)
    assert left > 20 * right


def test_larger_things_are_louder_and_growing_ones_become_so():
    small, large = (
        sound(scene(thing(size=size)), seconds=1.0, rate=24000).std() for size in ("small", "large")
    )
    assert large > 0.95 * RADIUS["large"] / RADIUS["small"] * small
    growing = sound(scene(thing(motion="grow")), seconds=1.0, rate=24000)
    assert growing[:, 19000:21000].std() > 1.5 * growing[:, 3000:5000].std()


def test_a_bounce_clicks_when_it_touches_the_floor():
    jumping = thing(motion="bounce", y=0.8, speed=2.0, phase=0.3)
    quiet = thing(motion="still", y=0.8)
    with_clicks, without = (sound(scene(one), seconds=1.0, rate=24000) for one in (jumping, quiet))
    heard = (with_clicks - without).abs().amax(0).nonzero()[:, 0] / 24000
    assert float(heard[0]) == pytest.approx(0.35, abs=0.001)
    assert set((heard * 20).int().tolist()) == {7, 17}


def test_sound_is_never_too_loud():
    scenes = [sample_scene(seed, things=2) for seed in range(100)]
    assert max(float(sound(one, seconds=1.0, rate=24000).abs().max()) for one in scenes) < 0.9


def test_a_scene_has_the_same_frames_and_samples_whenever_it_is_drawn():
    one, other = (sample_scene(3, things=2) for _ in range(2))
    assert torch.equal(frames_of(*one.things), frames_of(*other.things))
    assert torch.equal(*(sound(it, seconds=1.0, rate=16000) for it in (one, other)))


def test_outlines_are_white_where_things_are():
    frames = draw_outlines(
        scene(thing(), background="white"), width=128, height=128, num_frames=2, fps=24.0
    )
    assert frames.unique().tolist() == [0, 255]
    assert frames[0, 64, 64].tolist() == [255, 255, 255]
    assert frames[0, 0, 0].tolist() == [0, 0, 0]
