"""Latent upsampler: larger latents in space, in time, or in both.

Letters: B batch, C channels, F frames, H height, W width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from rayreel.config.model import UpsamplerConfig
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.video_vae.ops import Stride, depth_to_space

RATIOS: dict[float, tuple[int, int]] = {0.75: (3, 4), 1.5: (3, 2), 2.0: (2, 1), 4.0: (4, 1)}
"""Spatial scales as enlargement and reduction."""


class LatentUpsampler(nn.Module):
    """Residual convolutions around a pixel shuffle.

    Its group norms take their statistics over the whole clip, so it cannot work in tiles.
    """

    def __init__(self, config: UpsamplerConfig) -> None:
        """Make the layers.

        Raises:
            ValueError: If the config upsamples nothing, or by a factor that is not supported.
        """
        super().__init__()
        width, blocks = config.mid_channels, config.num_blocks_per_stage
        self.in_time = config.temporal_upsample
        self.initial_conv = nn.Conv3d(config.in_channels, width, 3, padding=1)
        self.initial_norm = nn.GroupNorm(32, width)
        self.res_blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.upsampler = _make_upsampler(config)
        self.post_upsample_res_blocks = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks))
        )
        self.final_conv = nn.Conv3d(width, config.in_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Upsample; computes in the dtype of the weights.

        Args:
            latent: Un-normalised ``(B, C, F, H, W)``.

        Returns:
            ``(B, C, F', H', W')`` in the dtype of ``latent``; in time, F frames become 2F - 1.
        """
        x = self.initial_conv(latent.to(self.initial_conv.weight.dtype))
        x = self.res_blocks(F.silu(self.initial_norm(x), inplace=True))
        if self.in_time:
            # The first latent frame is a single pixel frame and stays one: drop its first half.
            x = self.upsampler(x)[:, :, 1:]
        else:
            frames = self.upsampler(rearrange(x, "b c f h w -> (b f) c h w"))
            x = rearrange(frames, "(b f) c h w -> b c f h w", b=latent.shape[0])
        return self.final_conv(self.post_upsample_res_blocks(x)).to(latent.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions with group norms and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(32, channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to the same shape."""
        h = F.silu(self.norm1(self.conv1(x)), inplace=True)
        return F.silu(self.norm2(self.conv2(h)) + x, inplace=True)


class DepthToSpace(nn.Module):
    """``depth_to_space`` as a layer."""

    def __init__(self, stride: Stride) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C * p1 * p2 * p3, F, H, W)`` to ``(B, C, p1 * F, p2 * H, p3 * W)``."""
        return depth_to_space(x, self.stride)


class BlurDownsample(nn.Module):
    """Keeps every ``stride``-th row and column after a binomial blur; stride 1 changes nothing."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        # Published files store the kernel, even where it is not used.
        self.register_buffer("kernel", torch.outer(row, row)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, ceil(H / stride), ceil(W / stride))``."""
        if self.stride == 1:
            return x
        channels = x.shape[1]
        kernel = self.get_buffer("kernel").to(x.dtype).expand(channels, -1, -1, -1)
        return F.conv2d(x, kernel, stride=self.stride, padding=2, groups=channels)


class RationalResampler(nn.Module):
    """Spatial resampling by a ratio: a pixel shuffle enlarges, a blurred stride reduces."""

    def __init__(self, channels: int, scale: float) -> None:
        """Make the layers.

        Raises:
            ValueError: If the scale is none of ``RATIOS``.
        """
        super().__init__()
        if scale not in RATIOS:
            raise ValueError(f"spatial_scale={scale} is not supported; use one of {list(RATIOS)}")
        enlarge, reduce = RATIOS[scale]
        self.conv = nn.Conv2d(channels, enlarge**2 * channels, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(enlarge)
        self.blur_down = BlurDownsample(reduce)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, scale * H, scale * W)``, rounded up."""
        return self.blur_down(self.pixel_shuffle(self.conv(x)))


def _make_upsampler(config: UpsamplerConfig) -> nn.Module:
    width = config.mid_channels
    if config.temporal_upsample:
        stride = (2, 2, 2) if config.spatial_upsample else (2, 1, 1)
        factor = 8 if config.spatial_upsample else 2
        return nn.Sequential(nn.Conv3d(width, factor * width, 3, padding=1), DepthToSpace(stride))
    if not config.spatial_upsample:
        raise ValueError("spatial_upsample and temporal_upsample are both false")
    if config.rational_resampler:
        return RationalResampler(width, config.spatial_scale)
    if config.spatial_scale != 2:
        raise ValueError(
            f"spatial_scale={config.spatial_scale} needs rational_resampler; without it, it is 2"
        )
    return nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))


def upsample_latents(
    upsampler: LatentUpsampler, statistics: PerChannelStatistics, latent: Tensor
) -> Tensor:
    """Upsample latents as the transformer knows them.

    Args:
        upsampler: The network.
        statistics: Of the video VAE.
        latent: Normalised ``(B, C, F, H, W)``.

    Returns:
        Normalised ``(B, C, F', H', W')`` in the dtype of ``latent``.
    """
    return statistics.normalize(upsampler(statistics.un_normalize(latent)))
