"""Convolutional decoder of the video VAE: normalised latents to pixels.

Letters: B batch, C channels, F frames, H height, W width.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from rayreel.config.model import VideoVAEBlock, VideoVAEConfig
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.video_vae.attention import FrameAttention
from rayreel.models.video_vae.blocks import (
    ResidualBlock,
    ResidualStage,
    TimeEmbedder,
    Upsample,
    modulation,
)
from rayreel.models.video_vae.ops import (
    STRIDES,
    LayerStyle,
    NoiseSource,
    VideoConv3d,
    activate_and_convolve,
    draw,
    make_norm,
    unpatchify,
)
from rayreel.types import ScaleFactors

NOISE_SCALE = 0.025
"""Share of noise in the latent that a timestep-conditioned decoder reads."""

TIMESTEP = 0.05
"""Noise level that such a decoder is told by default."""


class VideoDecoder(nn.Module):
    """Convolutional decoder; variants of it are conditioned on a timestep and draw noise."""

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        style = LayerStyle(
            causal=config.causal_decoder, padding=config.decoder_padding, norm=config.norm_layer
        )
        width = config.decoder_base_channels * math.prod(map(_divisor, config.decoder_blocks))
        self.patch_size = config.patch_size
        self.reflects = style.padding == "reflect"
        self.factors = ScaleFactors(config.time_factor, config.space_factor, config.space_factor)
        self.conv_in = VideoConv3d(config.latent_channels, width, style)
        self.up_blocks = nn.ModuleList()
        # Published files list the blocks from the pixels to the latent.
        for block in reversed(config.decoder_blocks):
            narrower = width // _divisor(block)
            conditioned = config.timestep_conditioning
            self.up_blocks.append(_make_block(block, width, narrower, style, conditioned))
            width = narrower
        self.conv_norm_out = make_norm(width, style)
        self.conv_out = VideoConv3d(width, config.out_channels * config.patch_size**2, style)
        self.timestep_scale_multiplier: nn.Parameter | None = None
        if config.timestep_conditioning:
            self.timestep_scale_multiplier = nn.Parameter(torch.tensor(1000.0))
            self.last_time_embedder = TimeEmbedder(2 * width)
            self.last_scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.per_channel_statistics = PerChannelStatistics(config.latent_channels)

    def forward(
        self,
        latent: Tensor,
        *,
        timestep: Tensor | None = None,
        noise: NoiseSource | None = None,
    ) -> Tensor:
        """Decode latents; computes in the dtype of the weights.

        Args:
            latent: Normalised ``(B, C, F, H, W)``; H and W at least 2 where borders are reflected.
            timestep: ``(B,)``, read by conditioned decoders only; ``None`` is their default.
            noise: Source of noise; conditioned and noise-injecting decoders need it.

        Returns:
            Pixels ``(B, 3, time factor * (F - 1) + 1, factor * H, factor * W)`` in the dtype of
            ``latent``, about [-1, 1], not clamped.

        Raises:
            ValueError: If the latent is too small, or noise is needed and there is none.
        """
        if self.reflects and min(latent.shape[-2:]) < 2:
            raise ValueError(
                f"latent of {latent.shape[-2]}x{latent.shape[-1]} positions is too small: this "
                "decoder reflects its borders and needs at least 2x2"
            )
        x = latent.to(self.conv_in.conv.weight.dtype)
        scaled_timestep = None
        if self.timestep_scale_multiplier is not None:
            x = (1 - NOISE_SCALE) * x + NOISE_SCALE * draw(noise, tuple(x.shape), x)
            if timestep is None:
                timestep = torch.full((x.shape[0],), TIMESTEP, device=x.device)
            scaled_timestep = timestep.float() * self.timestep_scale_multiplier.float()
        x = self.conv_in(self.per_channel_statistics.un_normalize(x))
        for block in self.up_blocks:
            match block:
                case ResidualStage():
                    x = block(x, scaled_timestep, noise)
                case ResidualBlock():
                    x = block(x, noise=noise)
                case _:
                    x = block(x)
        rows: tuple[Tensor, ...] = ()
        if scaled_timestep is not None:
            embedding = self.last_time_embedder(scaled_timestep, x.dtype)
            rows = modulation(self.last_scale_shift_table, embedding)
        x = activate_and_convolve(x, self.conv_norm_out, self.conv_out, rows)
        return unpatchify(x, self.patch_size).to(latent.dtype)


def to_rgb(video: Tensor) -> Tensor:
    """Decoder output to frames.

    Args:
        video: ``(B, 3, F, H, W)``; [-1, 1] is the range of colours, what lies outside is clipped.

    Returns:
        RGB ``uint8`` ``(B, F, H, W, 3)``, truncated as the published pipelines do, not rounded.
    """
    levels = (video.float() + 1).mul_(127.5).clamp_(0, 255).to(torch.uint8)
    return rearrange(levels, "b c f h w -> b f h w c").contiguous()


def _divisor(block: VideoVAEBlock) -> int:
    """What a block divides the width by."""
    if block.name.startswith("compress_"):
        return block.multiplier or 1
    return block.multiplier or 2 if block.name == "res_x_y" else 1


def _make_block(
    block: VideoVAEBlock, width: int, narrower: int, style: LayerStyle, conditioned: bool
) -> nn.Module:
    match block.name.split("_"):
        case ["res", "x"]:
            return ResidualStage(
                width,
                block.num_layers,
                style,
                conditioned=conditioned,
                inject_noise=block.inject_noise,
            )
        case ["res", "x", "y"]:
            return ResidualBlock(width, narrower, style, inject_noise=block.inject_noise)
        case ["compress", ("time" | "space" | "all") as axes]:
            residual = block.residual and axes == "all"
            return Upsample(width, narrower, STRIDES[axes], style, residual=residual)
        case ["attn"]:
            return FrameAttention(width)
    raise ValueError(f"unknown block {block.name!r} of a video decoder")
