"""The linear map from latents to colours, as it is learned from clips."""

import pytest
import torch

from rayreel.pipelines.preview import ClipColours, Projection, ProjectionSums
from rayreel.types import ScaleFactors, seeded_generator

FACTORS = ScaleFactors(time=8, height=4, width=6)
DECODER = Projection(torch.tensor([[0.1, 0, 0], [0, -0.1, 0.02], [0, 0.03, 0.1], [0.5, 0.4, 0.6]]))


def latents(*shape, seed=0):
    return torch.randn(3, *shape, generator=seeded_generator(seed, "latents"))


def decoded(video):
    """A clip that is the projection itself, each latent position in one colour."""
    frames = torch.stack([DECODER(frame) for frame in video.unbind(1)])
    frames = frames.repeat_interleave(FACTORS.height, 1).repeat_interleave(FACTORS.width, 2)
    return torch.cat((frames[:1], frames[1:].repeat_interleave(FACTORS.time, 0)))


def learned(sums, video, frames, sizes=(5,)):
    colours = ClipColours(video, FACTORS)
    while len(frames):
        colours.see(frames[: sizes[0]])
        frames, sizes = frames[sizes[0] :], (*sizes[1:], sizes[0])
    return colours.added(sums)


def test_a_linear_decoder_is_found_again():
    sums = ProjectionSums.empty(3)
    for seed in range(20):
        video = latents(4, 8, 8, seed=seed)
        sums = learned(sums, video, decoded(video))
    # Colours have 256 levels, and the prior holds back a little.
    assert torch.allclose(sums.solved().weight, DECODER.weight, atol=1e-3)


def test_sizes_of_chunks_do_not_matter():
    video = latents(5, 2, 3)
    frames = decoded(video)
    whole = learned(ProjectionSums.empty(3), video, frames, (len(frames),))
    parts = learned(ProjectionSums.empty(3), video, frames, (1, 7, 3))
    assert torch.equal(parts.latents, whole.latents)
    assert torch.allclose(parts.colours, whole.colours, rtol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_latents_meet_the_colours_that_they_became(frames):
    video = latents(frames, 4, 4)
    rows = learned(ProjectionSums.empty(3), video, decoded(video))
    seen = rows.latents[-1, -1]
    assert seen == 16 * min(frames, 2)
    # Of each position the error is that of rounding, so it is small in sum too.
    expected = rows.latents @ DECODER.weight.double()
    assert torch.allclose(rows.colours, expected, atol=0.5 / 255 * 3 * float(seen))


def test_other_frames_than_their_own_would_be_noticed():
    video = latents(5, 4, 4)
    rows = learned(ProjectionSums.empty(3), video.roll(1, 1), decoded(video))
    expected = rows.latents @ DECODER.weight.double()
    assert not torch.allclose(rows.colours, expected, atol=0.5 / 255 * 3 * 32)


def test_latents_that_are_not_finite_teach_nothing():
    video = latents(2, 4, 4)
    frames, broken = decoded(video), torch.full_like(video, torch.nan)
    before = learned(ProjectionSums.empty(3), video, frames)
    after = learned(before, broken, frames)
    assert torch.equal(after.latents, before.latents)
    assert torch.equal(after.colours, before.colours)


def test_from_little_seen_there_is_a_projection_too():
    video = latents(1, 1, 1)
    projection = learned(ProjectionSums.empty(3), video, decoded(video)).solved()
    assert projection.weight.isfinite().all()
    near = projection(video[:, 0]).int() - decoded(video)[0, :1, :1].int()
    assert near.abs().max() <= 1


def test_whatever_is_projected_is_a_picture():
    for value in (torch.nan, torch.inf, -torch.inf, 1e30):
        picture = DECODER(torch.full((3, 2, 5), value, dtype=torch.bfloat16))
        assert (picture.shape, picture.dtype) == ((2, 5, 3), torch.uint8)
