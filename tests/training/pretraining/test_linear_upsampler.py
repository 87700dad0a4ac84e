"""An upsampler without residual blocks is fitted, not learned."""

import pytest
import torch
import torch.nn.functional as F

from rayreel.config.model import UpsamplerConfig
from rayreel.errors import SpecError
from rayreel.models.upsampler import LatentUpsampler
from rayreel.training.pretraining.linear_upsampler import fit_upsampler, is_linear

CHANNELS = 40


def network(**fields) -> LatentUpsampler:
    values = {"in_channels": CHANNELS, "mid_channels": 128, "num_blocks_per_stage": 0, **fields}
    config = UpsamplerConfig(**values)
    assert is_linear(config)
    return LatentUpsampler(config)


def pairs(clips: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents with a mean of their own in each clip, and larger ones that follow linearly."""
    made = torch.Generator().manual_seed(seed)
    small = torch.randn(clips, CHANNELS, 3, 4, 4, generator=made)
    small += torch.randn(clips, CHANNELS, 1, 1, 1, generator=made)
    weight = torch.randn(4 * CHANNELS, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(0))
    frames = F.conv2d(small.movedim(1, 2).flatten(0, 1), weight / CHANNELS, padding=1)
    large = F.pixel_shuffle(frames + 0.5, 2).unflatten(0, (clips, 3)).movedim(2, 1)
    return small, large


def test_what_follows_linearly_is_met_in_clips_that_were_not_fitted():
    fitted = network()
    fit_upsampler(fitted, *pairs(96, seed=1))
    small, large = pairs(8, seed=2)
    with torch.no_grad():
        found = fitted(small)
    assert found.shape == large.shape
    assert (found - large).square().mean() < 0.01 * large.var()


def test_weights_of_half_precision_will_do():
    fitted = network()
    fit_upsampler(fitted, *pairs(96, seed=1))
    small, large = pairs(8, seed=2)
    with torch.no_grad():
        found = fitted.bfloat16().float()(small)
    assert (found - large).square().mean() < 0.01 * large.var()


def test_a_narrow_network_is_refused_with_a_width_that_will_do():
    narrow = network(mid_channels=96)
    with pytest.raises(
        SpecError, match="40 channels needs mid_channels of at least 128; it has 96"
    ):
        fit_upsampler(narrow, *pairs(2, seed=1))
    least = network(in_channels=32, mid_channels=96)
    fit_upsampler(least, *(one[:, :32] for one in pairs(8, seed=1)))


@pytest.mark.parametrize(
    "fields",
    [{"num_blocks_per_stage": 1}, {"temporal_upsample": True}, {"rational_resampler": True}],
    ids=min,
)
def test_other_networks_have_to_learn(fields):
    assert not is_linear(UpsamplerConfig(**{"num_blocks_per_stage": 0, **fields}))
