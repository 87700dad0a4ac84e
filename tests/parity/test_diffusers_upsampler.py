"""Latent upsampler against diffusers', with random weights. Names are the same on both sides."""

import pytest
import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

from rayreel.checkpoints.builder import build
from rayreel.config.model import UpsamplerConfig
from rayreel.models.upsampler import RATIOS, LatentUpsampler


@pytest.mark.parametrize(
    ("in_space", "in_time", "rational", "scale"),
    [
        (True, False, False, 2.0),
        (False, True, False, 2.0),
        (True, True, False, 2.0),
        *((True, False, True, scale) for scale in RATIOS),
    ],
)
def test_upsampler(in_space, in_time, rational, scale):
    sizes = {"in_channels": 4, "mid_channels": 32, "num_blocks_per_stage": 2}
    flags = {"spatial_upsample": in_space, "temporal_upsample": in_time}
    torch.manual_seed(0)
    theirs = LTX2LatentUpsamplerModel(
        **sizes, **flags, use_rational_resampler=rational, rational_spatial_scale=scale
    ).requires_grad_(False)
    config = UpsamplerConfig.model_validate(
        {**sizes, **flags, "rational_resampler": rational, "spatial_scale": scale}
    )
    ours = build(lambda: LatentUpsampler(config), theirs.state_dict())
    latent = torch.randn(2, 4, 3, 5, 4)
    torch.testing.assert_close(ours(latent), theirs(latent), rtol=1e-4, atol=1e-5)
