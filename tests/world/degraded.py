"""Clips as a small autoencoder gives them back: soft, a little off in colour, and noisy."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from rayreel.world.dataset import Format, make_clip

FORM = Format()


def degraded(scene, seed, *, blur=1.5, shift=0.1, noise=8.0, hiss=0.003, form=FORM):
    """Frames and samples of a scene after a blur, a shift of colours and noise."""
    rng = np.random.default_rng(seed)
    clip = make_clip(scene, form)
    pixels = gaussian_filter(clip.frames.numpy().astype(np.float32), (0, blur, blur, 0))
    pixels = pixels * rng.uniform(1 - shift, 1 + shift, 3) + rng.normal(0, noise, pixels.shape)
    assert clip.audio
    samples = clip.audio.waveform
    hissing = samples + torch.from_numpy(rng.normal(0, hiss, samples.shape)).float()
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)), hissing
