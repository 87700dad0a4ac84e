"""What each condition keeps clean."""

import pytest
import torch

from rayreel.config.strategies import FirstFrame, Mask, Prefix, SpatialCrop, Suffix
from rayreel.training.geometry import Geometry
from rayreel.training.regions import kept_tokens
from rayreel.types import ScaleFactors

FRAMES, HEIGHT, WIDTH = 4, 2, 3
VIDEO = Geometry().video_target(torch.zeros(5, FRAMES, HEIGHT, WIDTH), 24.0)
AUDIO = Geometry().audio_target(torch.zeros(2, 7, 3))


def grid(region, target=VIDEO, mask=None):
    """Kept tokens of a video as frames, rows and columns."""
    shape = target.shape
    return kept_tokens(region, target, mask).view(shape.frames, shape.height, shape.width)


def region(*edges):
    return SpatialCrop(region=edges)


def test_the_first_frame_is_the_first_latent_frame():
    assert grid(FirstFrame()).flatten(1).all(1).tolist() == [True, False, False, False]
    assert grid(FirstFrame()).sum() == HEIGHT * WIDTH


def test_an_image_has_no_first_frame():
    image = Geometry().video_target(torch.zeros(5, 1, HEIGHT, WIDTH), 1.0)
    assert not kept_tokens(FirstFrame(), image).any()


def test_prefix_and_suffix_are_whole_frames():
    assert grid(Prefix(length=3)).flatten(1).float().mean(1).tolist() == [1, 1, 1, 0]
    assert grid(Suffix(length=1)).flatten(1).float().mean(1).tolist() == [0, 0, 0, 1]


def test_prefix_and_suffix_of_sound_are_steps():
    assert kept_tokens(Prefix(length=2), AUDIO).tolist() == [True] * 2 + [False] * 5
    assert kept_tokens(Suffix(length=3), AUDIO).tolist() == [False] * 4 + [True] * 3


@pytest.mark.parametrize("condition", [Prefix(length=9), Suffix(length=9)])
def test_what_is_longer_than_the_clip_is_all_of_it(condition):
    assert kept_tokens(condition, VIDEO).all()
    assert kept_tokens(condition, AUDIO).all()


def test_a_rectangle_is_kept_in_all_frames():
    expected = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    expected[:, 0:1, 1:3] = True
    assert torch.equal(grid(region(0, 32, 32, 96)), expected)


def test_edges_of_a_rectangle_are_rounded_down_and_end_with_the_picture():
    assert torch.equal(grid(region(31, 33, 63, 95)), grid(region(0, 32, 32, 64)))
    assert torch.equal(grid(region(0, 32, 6400, 6400)), grid(region(0, 32, 64, 96)))


def test_a_rectangle_is_measured_by_the_factors_of_the_model():
    fine = Geometry(factors=ScaleFactors(4, 16, 16))
    target = fine.video_target(torch.zeros(5, FRAMES, HEIGHT, WIDTH), 24.0)
    assert torch.equal(grid(region(0, 16, 16, 48), target), grid(region(0, 32, 32, 96)))


def test_a_mask_keeps_what_is_above_a_half():
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH)
    mask[2, 1, 0], mask[3, 0, 2] = 1, 0.5
    assert grid(Mask(), mask=mask).nonzero().tolist() == [[2, 1, 0]]
    sound = torch.tensor([0, 0, 0.6, 1, 0, 0, 0])
    assert kept_tokens(Mask(), AUDIO, sound).nonzero().flatten().tolist() == [2, 3]


@pytest.mark.parametrize("mask", [None, torch.zeros(FRAMES, WIDTH, HEIGHT)])
def test_a_mask_is_one_of_the_target(mask):
    with pytest.raises(ValueError, match=r"expected a mask of \(4, 2, 3\)"):
        kept_tokens(Mask(), VIDEO, mask)
