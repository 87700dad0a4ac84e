"""What strategies make of a sample."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayreel.conditioning.keyframes import Keyframe
from rayreel.config.strategies import Flexible, InContext, TextToVideo
from rayreel.errors import SpecError
from rayreel.training.example import Draws
from rayreel.training.geometry import Geometry
from rayreel.types import ScaleFactors
from tests.training.samples import (
    CHANNELS,
    FRAME,
    SIZE,
    STEPS,
    TOKENS,
    audio_tokens,
    example,
    flexible,
    maker,
    normal,
    sample,
    together,
    video_tokens,
)

REFERENCE = {"type": "reference"}
A2V = Flexible.model_validate({"video": {}, "audio": {"generated": False}})
V2A = Flexible.model_validate({"video": {"generated": False}, "audio": {}})
DRAWS = Draws(seed=0, epoch=0, step=0, sample=0)


def learned_of(stream):
    """Which tokens count, as numbers."""
    return stream.loss_mask[0].nonzero().flatten().tolist()


def assert_is_clean(stream, tokens, clean):
    """Tokens are as in the sample, at level 0 and of no loss."""
    assert torch.equal(stream.noisy[:, tokens], clean[:, tokens])
    assert not stream.loss_mask[:, tokens].any()
    assert not stream.timesteps.expand_as(stream.loss_mask)[:, tokens].any()


def test_noise_is_added_by_the_level_and_its_direction_is_the_target():
    clip = sample()
    stream = example(TextToVideo(first_frame=0), clip).video
    clean = video_tokens(clip.video_latents)
    noise = clean + stream.target
    torch.testing.assert_close(stream.noisy, (1 - stream.sigma) * clean + stream.sigma * noise)
    assert noise.mean().abs() < 0.5
    assert 0.5 < noise.std() < 1.5
    assert stream.timesteps.tolist() == [stream.sigma.tolist()]
    assert 0 < stream.sigma < 1


def test_both_streams_of_text_to_video_have_one_level_and_noise_of_their_own():
    batch = example(TextToVideo(first_frame=0))
    assert torch.equal(batch.video.sigma, batch.audio.sigma)
    assert batch.audio.loss_mask.all()
    noise = [
        (video_tokens(sample().video_latents) + batch.video.target).flatten(),
        (audio_tokens(sample().audio_latents) + batch.audio.target).flatten(),
    ]
    assert not torch.isin(noise[1], noise[0]).any()


def test_streams_of_conditions_have_levels_of_their_own():
    batch = example(flexible(video=[], audio=[]))
    assert not torch.equal(batch.video.sigma, batch.audio.sigma)


def test_sound_alone_has_the_level_of_its_own_length():
    clip = sample()
    alone = example(TextToVideo(video=False), clip)
    assert alone.video is None
    assert torch.equal(alone.audio.sigma, example(flexible(audio=[]), clip).audio.sigma)


@pytest.mark.parametrize("strategy", [TextToVideo, InContext])
def test_the_first_frame_is_always_shown_at_share_1(strategy):
    clip = sample(reference_latents=sample(seed=5).video_latents)
    stream = example(strategy(first_frame=1), clip).video
    assert_is_clean(stream, slice(FRAME), video_tokens(clip.video_latents))
    assert learned_of(stream) == list(range(FRAME, TOKENS))
    assert torch.equal(stream.timesteps[0, FRAME:TOKENS], stream.sigma.expand(TOKENS - FRAME))


@pytest.mark.parametrize("epoch", range(5))
def test_the_first_frame_is_never_shown_at_share_0(epoch):
    stream = example(TextToVideo(first_frame=0), draws=replace(DRAWS, epoch=epoch)).video
    assert learned_of(stream) == list(range(TOKENS))


def test_the_first_frame_is_shown_to_as_many_samples_as_stated():
    make = maker(TextToVideo(first_frame=0.3, audio=False))
    clip = sample()
    streams = [make(clip, replace(DRAWS, sample=number)).video for number in range(400)]
    shown = sum(len(learned_of(stream)) < TOKENS for stream in streams)
    assert 90 < shown < 150


def test_an_image_is_learned_as_a_whole():
    stream = example(TextToVideo(first_frame=1, audio=False), sample((1, 2, 4), fps=1.0)).video
    assert learned_of(stream) == list(range(FRAME))


CONDITIONS = {
    "prefix": ({"type": "prefix", "length": 2}, range(2 * FRAME)),
    "suffix": ({"type": "suffix", "length": 1}, range(2 * FRAME, TOKENS)),
    "spatial_crop": (
        {"type": "spatial_crop", "region": [0, 32, 32, 96]},
        [frame * FRAME + column for frame in range(3) for column in (1, 2)],
    ),
    "mask": ({"type": "mask"}, [1, 3, 23]),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_keep_their_part_of_the_picture(name):
    condition, kept = CONDITIONS[name]
    mask = torch.zeros(TOKENS)
    mask[[1, 3, 23]] = 1
    clip = sample(video_mask=mask.view(SIZE))
    stream = example(flexible(video=[condition]), clip).video
    assert_is_clean(stream, list(kept), video_tokens(clip.video_latents))
    assert learned_of(stream) == sorted(set(range(TOKENS)) - set(kept))


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({"type": "prefix", "length": 2}, [0, 1]),
        ({"type": "suffix", "length": 2}, [4, 5]),
        ({"type": "mask"}, [3]),
    ],
)
def test_conditions_keep_their_part_of_the_sound(condition, kept):
    clip = sample(audio_mask=torch.tensor([0, 0, 0, 1.0, 0, 0]))
    stream = example(flexible(audio=[condition]), clip).audio
    assert_is_clean(stream, kept, audio_tokens(clip.audio_latents))
    assert learned_of(stream) == sorted(set(range(STEPS)) - set(kept))


def test_conditions_add_up():
    conditions = [{"type": "prefix", "length": 1}, {"type": "suffix", "length": 1}]
    stream = example(flexible(video=conditions)).video
    assert learned_of(stream) == list(range(FRAME, 2 * FRAME))


def test_a_reference_follows_the_target_on_doubled_positions():
    latents = sample((3, 1, 2), seed=5).video_latents
    strategy, clip = InContext(first_frame=0), sample(reference_latents=latents)
    stream = example(strategy, clip, reference_scales=(2, 1)).video
    assert stream.noisy.shape == (1, TOKENS + 6, CHANNELS)
    assert torch.equal(stream.noisy[:, TOKENS:], video_tokens(latents))
    assert not stream.loss_mask[:, TOKENS:].any()
    assert not stream.timesteps[:, TOKENS:].any()
    own = Geometry().video_target(latents, 24.0).initial_state(latents[None]).positions
    assert torch.equal(stream.positions[:, 0, TOKENS:], own[:, 0])
    assert torch.equal(stream.positions[:, 1:, TOKENS:], 2 * own[:, 1:])


def test_a_reference_of_every_second_frame_spans_the_same_time():
    clip = sample((5, 2, 4), reference_latents=sample(seed=5).video_latents)
    stream = example(InContext(first_frame=0), clip, reference_scales=(1, 2)).video
    second = stream.positions[0, 0, 5 * FRAME + FRAME]
    torch.testing.assert_close(second, torch.tensor((1 / 24, 17 / 24)))


@pytest.mark.parametrize("frame", [-1, 16])
def test_an_image_is_pinned_to_its_frame_as_a_keyframe_is(frame):
    clip = sample(reference_latents=sample((1, 2, 4), seed=5).video_latents)
    stream = example(flexible(video=[REFERENCE | {"frame": frame}]), clip).video
    target = Geometry().video_target(clip.video_latents, 24.0)
    keyframe = Keyframe(latent=clip.reference_latents[None], frame_index=16)
    state = keyframe.apply(target.initial_state(clip.video_latents[None]), target)
    assert torch.equal(stream.positions, state.positions)
    assert stream.positions[0, 0, -1].tolist() == pytest.approx([16 / 24, 17 / 24])
    assert torch.equal(stream.noisy[:, TOKENS:], video_tokens(clip.reference_latents))
    assert learned_of(stream) == list(range(TOKENS))


def test_a_reference_changes_nothing_of_the_target():
    clip = sample(reference_latents=sample(seed=5).video_latents)
    alone, shown = (example(flexible(video=one), clip).video for one in ([], [REFERENCE]))
    for name in ("noisy", "target", "loss_mask"):
        assert torch.equal(getattr(shown, name)[:, :TOKENS], getattr(alone, name))
    assert torch.equal(shown.sigma, alone.sigma)
    assert torch.equal(shown.positions[:, :, :TOKENS], alone.positions)


def test_a_reference_of_sound_lies_where_it_lies_itself():
    latents = normal(7, 2, 3, 3)
    strategy = flexible(audio=[REFERENCE])
    stream = example(strategy, sample(reference_audio_latents=latents)).audio
    assert torch.equal(stream.noisy[:, STEPS:], audio_tokens(latents))
    assert torch.equal(stream.positions[:, :, STEPS:], stream.positions[:, :, :3])
    assert learned_of(stream) == list(range(STEPS))


def test_all_samples_of_a_step_have_a_reference_or_none():
    make = maker(flexible(video=[REFERENCE | {"probability": 0.5}]))
    clip = sample(reference_latents=sample(seed=5).video_latents)

    def tokens(step, number):
        return make(clip, replace(DRAWS, step=step, sample=number)).video.noisy.shape[1]

    counts = [{tokens(step, number) for number in range(4)} for step in range(20)]
    assert all(len(of_step) == 1 for of_step in counts)
    assert set.union(*counts) == {TOKENS, 2 * TOKENS}


@pytest.mark.parametrize(("strategy", "name"), [(A2V, "audio"), (V2A, "video")])
def test_a_frozen_stream_is_clean_context(strategy, name):
    batch, clip = example(strategy), sample()
    clean = {
        "video": video_tokens(clip.video_latents),
        "audio": audio_tokens(clip.audio_latents),
    }
    frozen = getattr(batch, name)
    assert_is_clean(frozen, slice(None), clean[name])
    assert frozen.target is None
    assert frozen.sigma == 0
    learned = batch.audio if name == "video" else batch.video
    assert learned.loss_mask.all()
    assert learned.sigma > 0


def test_a_frozen_stream_may_have_a_reference():
    strategy = Flexible.model_validate(
        {"video": {"generated": False, "conditions": [REFERENCE]}, "audio": {}}
    )
    clip = sample(reference_latents=sample(seed=5).video_latents)
    frozen = example(strategy, clip).video
    assert frozen.noisy.shape[1] == 2 * TOKENS
    assert frozen.timesteps.tolist() == [[0]]


def same(one, other):
    """Whether examples of a stream are equal to the bit."""
    tensors = [(getattr(one, name), getattr(other, name)) for name in one.__slots__]
    return all(a is b or torch.equal(a, b) for a, b in tensors)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 99),
    number=st.integers(0, 10**6),
    steps=st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)),
)
def test_chance_depends_on_seed_epoch_and_sample_alone(seed, epoch, number, steps):
    make, clip = maker(TextToVideo(first_frame=0.5)), sample()
    draws = [Draws(seed, epoch, step, number) for step in steps]
    one, other = (make(clip, draw) for draw in draws)
    assert same(one.video, other.video)
    assert same(one.audio, other.audio)
    for changed in (
        replace(draws[0], seed=seed + 1),
        replace(draws[0], epoch=epoch + 1),
        replace(draws[0], sample=number + 1),
    ):
        assert not torch.equal(make(clip, changed).video.target, one.video.target)


def test_a_sample_is_the_same_in_every_batch():
    make = maker(TextToVideo(first_frame=0.5))
    clips = [sample(seed=10 * number) for number in range(6)]
    ones = [make(clip, replace(DRAWS, sample=number)) for number, clip in enumerate(clips)]
    batch = together(ones).video
    levels = {one.video.timesteps.shape[1] for one in ones}
    assert levels == {1, TOKENS}, "some are shown their first frame, some are not"
    for number, one in enumerate(ones):
        assert torch.equal(batch.noisy[number], one.video.noisy[0])
        assert torch.equal(batch.target[number], one.video.target[0])
        assert torch.equal(batch.timesteps[number], one.video.timesteps[0].expand(TOKENS))


def test_samples_of_one_rate_share_positions_and_others_do_not():
    make = maker(TextToVideo())
    ones = [make(sample(fps=fps), DRAWS) for fps in (24.0, 24.0, 30.0)]
    shared, mixed = together(ones[:2]).video.positions, together(ones).video.positions
    assert torch.equal(shared, ones[0].video.positions)
    assert torch.equal(mixed, torch.cat([one.video.positions for one in ones]))


def test_examples_of_sources_are_not_changed_by_making_them():
    clip = sample()
    before = clip.video_latents.clone(), clip.audio_latents.clone()
    example(A2V, clip)
    example(TextToVideo(first_frame=1), clip)
    assert torch.equal(clip.video_latents, before[0])
    assert torch.equal(clip.audio_latents, before[1])


@pytest.mark.parametrize(
    ("strategy", "missing"),
    [
        (TextToVideo(), "video_latents"),
        (TextToVideo(), "audio_latents"),
        (TextToVideo(), "text"),
        (InContext(), "reference_latents"),
        (flexible(audio=[REFERENCE]), "reference_audio_latents"),
    ],
)
def test_a_sample_without_what_is_needed_is_refused(strategy, missing):
    clip = replace(sample(), **{missing: None})
    with pytest.raises(ValueError, match=f"sample a has no {missing}$"):
        example(strategy, clip)


def test_a_rectangle_smaller_than_a_latent_position_is_refused():
    with pytest.raises(SpecError, match="32 x 32 pixels"):
        maker(flexible(video=[{"type": "spatial_crop", "region": [0, 0, 31, 64]}]))


def test_a_stream_has_one_reference():
    with pytest.raises(ValueError, match="more than one condition of type reference"):
        flexible(video=[REFERENCE, REFERENCE])


def test_a_model_of_finer_latents_has_finer_positions():
    fine = Geometry(factors=ScaleFactors(4, 16, 16))
    target = fine.video_target(sample().video_latents, 24.0)
    positions = target.initial_state(sample().video_latents[None]).positions
    assert positions[0, 1:].amax() == 64
    assert positions[0, 0].amax() == 9 / 24
