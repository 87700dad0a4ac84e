"""Likeness of clips."""

import math

import pytest
import torch

from rayreel.media.similarity import psnr_db, ssim


@pytest.fixture
def frames():
    steps = torch.arange(64)
    ramp = (steps[:, None] * 2 + steps[None, :]).to(torch.uint8)
    return ramp[None, :, :, None].repeat(3, 1, 1, 3)


def noisy(frames, deviation):
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * deviation
    return (frames + noise).clamp(0, 255).to(torch.uint8)


def test_equal_frames_are_as_alike_as_can_be(frames):
    assert psnr_db(frames, frames) == math.inf
    assert ssim(frames, frames) == 1


def test_psnr_is_that_of_the_mean_square(frames):
    assert psnr_db(frames, frames + 2) == pytest.approx(20 * math.log10(255 / 2))


def test_more_noise_is_less_alike(frames):
    found = [ssim(frames, noisy(frames, deviation)) for deviation in (2, 8, 32)]
    assert 1 > found[0] > found[1] > found[2] > 0


def test_ssim_is_the_mean_over_frames(frames):
    half = frames.clone()
    half[0] = noisy(frames, 30)[0]
    wrong = ssim(frames[:1], half[:1])
    assert ssim(frames, half) == pytest.approx((wrong + 2) / 3, abs=1e-5)


def test_structure_counts_more_than_brightness(frames):
    assert ssim(frames, frames + 6) > ssim(frames, noisy(frames, 6))


@pytest.mark.parametrize("measure", [psnr_db, ssim])
def test_clips_of_different_sizes_are_not_compared(frames, measure):
    with pytest.raises(ValueError, match="one shape"):
        measure(frames, frames[:, :32])
