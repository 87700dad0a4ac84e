"""Encoder of the video VAE: pixels to normalised latents.

Letters: B batch, C channels, F frames, H height, W width.
"""

import logging

from torch import Tensor, nn

from rayreel.config.model import VideoVAEBlock, VideoVAEConfig
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.video_vae.attention import FrameAttention
from rayreel.models.video_vae.blocks import Downsample, ResidualBlock, ResidualStage
from rayreel.models.video_vae.ops import (
    STRIDES,
    LayerStyle,
    VideoConv3d,
    activate_and_convolve,
    make_norm,
    patchify,
)
from rayreel.types import ScaleFactors, VideoLatentShape

logger = logging.getLogger(__name__)


class VideoEncoder(nn.Module):
    """Causal convolutional encoder; deterministic, as it returns the mean of the posterior."""

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        style = LayerStyle(causal=True, padding=config.encoder_padding, norm=config.norm_layer)
        width = config.latent_channels
        moments = 2 * width if config.latent_log_var == "per_channel" else width + 1
        self.latent_channels = config.latent_channels
        self.patch_size = config.patch_size
        self.factors = ScaleFactors(config.time_factor, config.space_factor, config.space_factor)
        self.conv_in = VideoConv3d(config.in_channels * config.patch_size**2, width, style)
        self.down_blocks = nn.ModuleList()
        for block in config.encoder_blocks:
            module, width = _make_block(block, width, style)
            self.down_blocks.append(module)
        self.conv_norm_out = make_norm(width, style)
        self.conv_out = VideoConv3d(width, moments, style)
        self.per_channel_statistics = PerChannelStatistics(config.latent_channels)

    def forward(self, video: Tensor) -> Tensor:
        """Encode pixels; computes in the dtype of the weights.

        Args:
            video: ``(B, C, F, H, W)`` in [-1, 1]; H and W multiples of the spatial factor.

        Returns:
            Normalised latent ``(B, latent_channels, (F - 1) // time factor + 1, H / factor,
            W / factor)`` in the dtype of ``video``.

        Raises:
            ValueError: If H or W does not fit.
        """
        shape = latent_shape(video, self.factors, self.latent_channels)
        whole = video[:, :, : shape.pixel_frames(self.factors)].to(self.conv_in.conv.weight.dtype)
        x = self.conv_in(patchify(whole, self.patch_size))
        for block in self.down_blocks:
            x = block(x)
        x = activate_and_convolve(x, self.conv_norm_out, self.conv_out)
        # What follows the means is their log-variance, which only training reads.
        means = x[:, : self.latent_channels]
        return self.per_channel_statistics.normalize(means).to(video.dtype)


def latent_shape(video: Tensor, factors: ScaleFactors, channels: int) -> VideoLatentShape:
    """Shape that a video is encoded to; frames that do not fill a latent are announced and cut off.

    Raises:
        ValueError: If height or width is no multiple of the spatial factor.
    """
    batch, _, frames, height, width = video.shape
    if height % factors.height or width % factors.width:
        raise ValueError(
            f"{height}x{width} pixels do not fit the video VAE: height and width must be multiples "
            f"of {factors.height}"
        )
    shape = VideoLatentShape.from_pixels(
        frames=frames, height=height, width=width, channels=channels, factors=factors, batch=batch
    )
    if (kept := shape.pixel_frames(factors)) != frames:
        logger.warning(
            "%d frames do not fit the video VAE (%dk + 1): the last %d are cut off",
            frames,
            factors.time,
            frames - kept,
        )
    return shape


def _make_block(block: VideoVAEBlock, width: int, style: LayerStyle) -> tuple[nn.Module, int]:
    """Make one block of the encoder; returns it and its output's width."""
    wider = width * (block.multiplier or 2)
    match block.name.split("_"):
        case ["res", "x"]:
            return ResidualStage(width, block.num_layers, style), width
        case ["res", "x", "y"]:
            return ResidualBlock(width, wider, style), wider
        case ["compress", ("time" | "space" | "all") as axes, "res"]:
            return Downsample(width, wider, STRIDES[axes], style), wider
        case ["compress", ("time" | "space" | "all") as axes]:
            return VideoConv3d(width, width, style, stride=STRIDES[axes]), width
        case ["compress", "all", "x", "y"]:
            return VideoConv3d(width, wider, style, stride=STRIDES["all"]), wider
        case ["attn"]:
            return FrameAttention(width), width
    raise ValueError(f"unknown block {block.name!r} of a video encoder")
