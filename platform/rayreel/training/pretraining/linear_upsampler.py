"""A latent upsampler without residual blocks as a linear map, which is known without learning.

A group norm and SiLU stand in its way. Beside what says something each group has a pair of long
constants, less half of it: so a group's mean is 0, its deviation that of the constants, and what it
says is a small number, of which SiLU is a half. What follows is least squares.

Letters: B batch, C channels, F frames, H height, W width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from rayreel.config.model import UpsamplerConfig
from rayreel.errors import SpecError
from rayreel.models.upsampler import LatentUpsampler
from rayreel.training.pretraining.least_squares import least_squares

_CONSTANT = 100.0
_SCALE = 2


def is_linear(config: UpsamplerConfig) -> bool:
    """Whether ``fit_upsampler`` can set all weights of such a network."""
    plain = not config.temporal_upsample and not config.rational_resampler
    return plain and config.num_blocks_per_stage == 0


@torch.no_grad()
def fit_upsampler(network: LatentUpsampler, small: Tensor, large: Tensor) -> None:
    """Set all weights.

    Args:
        network: Of a config that ``is_linear``.
        small: Un-normalised latents, float32 ``(B, C, F, H, W)``.
        large: What they should become, ``(B, C, F, 2 * H, 2 * W)``.

    Raises:
        SpecError: If the network is too narrow.
    """
    _carry(network.initial_conv, network.initial_norm, small.shape[1])
    x = F.silu(network.initial_norm(network.initial_conv(small)))
    assert isinstance(network.upsampler, nn.Sequential)
    conv = network.upsampler[0]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert network.final_conv.bias is not None
    frames = rearrange(x, "b c f h w -> (b f) c h w")
    seen = F.unfold(frames, 3, padding=1)
    wanted = rearrange(large, "b c f (h p) (w q) -> (b f h w) (c p q)", p=_SCALE, q=_SCALE)
    weight, bias = least_squares(rearrange(seen, "n d l -> (n l) d"), wanted)
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[: len(weight)] = weight.reshape(-1, *conv.weight.shape[1:])
    conv.bias[: len(bias)] = bias
    nn.init.dirac_(network.final_conv.weight)
    network.final_conv.bias.zero_()


def _carry(conv: nn.Conv3d, norm: nn.GroupNorm, channels: int) -> None:
    """Let every channel through, a number of them in each group."""
    width = conv.out_channels // norm.num_groups
    said = width - 2
    if said * norm.num_groups < channels:
        least = (-(-channels // norm.num_groups) + 2) * norm.num_groups
        raise SpecError(
            f"an upsampler that is fitted to {channels} channels needs mid_channels of at least "
            f"{least}; it has {conv.out_channels}"
        )
    assert conv.bias is not None
    for parameter in (conv.weight, conv.bias, norm.bias):
        parameter.zero_()
    norm.weight.fill_(1)
    for channel in range(channels):
        group, place = divmod(channel, said)
        first = group * width
        conv.weight[first + place, channel, 1, 1, 1] = 1
        conv.weight[first + said : first + width, channel, 1, 1, 1] = -0.5
    for group in range(norm.num_groups):
        pair = slice(group * width + said, (group + 1) * width)
        conv.bias[pair] = torch.tensor([_CONSTANT, -_CONSTANT])
        # As small as what is said, or it would outweigh it in least squares.
        norm.weight[pair] = 1 / _CONSTANT
