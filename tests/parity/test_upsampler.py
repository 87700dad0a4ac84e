"""Latent upsampler against the published implementation's results."""

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.config.model import UpsamplerConfig
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.upsampler import (
    BlurDownsample,
    LatentUpsampler,
    ResidualBlock,
    upsample_latents,
)
from rayreel.models.video_vae.ops import depth_to_space
from tests.parity.vectors import cases, component, weights

OPS = "common/resample_ops.safetensors"


def load_upsampler(case, dtype=torch.float32):
    file = case.options["upsampler"]
    config = weights(file).section(None, UpsamplerConfig)
    return build(lambda: LatentUpsampler(config), component(file, ""), dtype=dtype)


def load_statistics(case):
    stored = component(f"{case.folder}/model.safetensors", "vae.per_channel_statistics.")
    wanted = {name: stored[name] for name in ("mean-of-means", "std-of-means")}
    return build(lambda: PerChannelStatistics(case.inputs["latent"].shape[1]), wanted)


@pytest.mark.parametrize("case", cases("v*/upsampler.safetensors"))
def test_upsampler(case):
    latent, upsampler = case.inputs["latent"], load_upsampler(case)
    case.assert_close(upsampler(latent), "raw")
    case.assert_close(upsample_latents(upsampler, load_statistics(case), latent), "with_statistics")


@pytest.mark.parametrize(
    "case", [c for c in cases("v*/upsampler.safetensors") if c.values[0].tensors("out64")]
)
def test_upsampler_in_float64(case):
    upsampler = load_upsampler(case, torch.float64)
    raw = upsampler(case.inputs["latent"].double())
    case.assert_close(raw, case.tensors("out64")["raw"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", cases(OPS, "blur_*"))
def test_blur(case):
    blur = BlurDownsample(case.options["stride"])
    x = case.inputs["x"]
    frames = blur(x.transpose(1, 2).flatten(0, 1))
    case.assert_close(blur.get_buffer("kernel"), "kernel")
    case.assert_close(frames.unflatten(0, (len(x), -1)).transpose(1, 2), "y")


@pytest.mark.parametrize("case", cases(OPS, "pixel_shuffle_*"))
def test_pixel_shuffle(case):
    x, y = case.inputs["x"], case.out["y"]
    flat = x.dim() == 4
    if flat:
        x, y = x.unsqueeze(2), y.unsqueeze(2)
    frames, height, width = (y.shape[axis] // x.shape[axis] for axis in (2, 3, 4))
    case.assert_close(depth_to_space(x, (frames, height, width)), y)


@pytest.mark.parametrize("case", cases(OPS, "res_block_2d_*"))
def test_residual_block(case):
    """A convolution of one frame is the 3D one whose outer time taps are zero."""
    tensors = {name: tensor.float() for name, tensor in case.inputs.items()}
    x = tensors.pop("x")
    inflated = {
        name: torch.nn.functional.pad(t.unsqueeze(2), (0, 0, 0, 0, 1, 1)) if t.dim() == 4 else t
        for name, t in tensors.items()
    }
    block = build(lambda: ResidualBlock(x.shape[1]), inflated)
    case.assert_close(block(x.unsqueeze(2)).squeeze(2), "y")
