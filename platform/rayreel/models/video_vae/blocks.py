"""Blocks that encoder and decoder of the video VAE are made of.

Letters: B batch, C channels, F frames, H height, W width.
"""

import math
from collections import OrderedDict

import torch
from einops import reduce
from torch import Tensor, nn

from rayreel.models.video_vae.ops import (
    LayerStyle,
    NoiseSource,
    Stride,
    VideoConv3d,
    activate_and_convolve,
    depth_to_space,
    draw,
    make_norm,
    space_to_depth,
)


class TimeEmbedder(nn.Module):
    """Sinusoidal embedding of a scalar, then a small MLP."""

    FREQUENCIES = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = nn.Sequential(
            OrderedDict(
                linear_1=nn.Linear(2 * self.FREQUENCIES, width),
                activation=nn.SiLU(),
                linear_2=nn.Linear(width, width),
            )
        )

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """Float32 ``(B,)`` to ``(B, width)`` in ``dtype``, the dtype of the weights.

        The angles stay float32, as bfloat16 cannot tell timesteps apart.
        """
        index = torch.arange(self.FREQUENCIES, device=timestep.device, dtype=torch.float32)
        angles = timestep[:, None] * torch.exp(-math.log(10000.0) / self.FREQUENCIES * index)
        return self.timestep_embedder(torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype))


def modulation(table: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
    """Rows of a scale-and-shift table, moved by an embedding.

    Args:
        table: ``(rows, C)``; published files keep it in float32 beside bfloat16 weights.
        embedding: ``(B, rows * C)``; its dtype is that of the result.

    Returns:
        One tensor ``(B, C, 1, 1, 1)`` for each row.
    """
    rows = table.to(embedding.dtype) + embedding.view(-1, *table.shape)
    return rows[..., None, None, None].unbind(1)


class ResidualBlock(nn.Module):
    """Two convolutions with a skip; the skip has weights where the width changes (``res_x_y``)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: LayerStyle,
        *,
        conditioned: bool = False,
        inject_noise: bool = False,
    ) -> None:
        """Make the layers.

        Args:
            in_channels: Width of the input.
            out_channels: Width of the output.
            style: Padding and norms.
            conditioned: Whether an embedding scales and shifts the normalised activations.
            inject_noise: Whether noise is added after each convolution: one map ``(H, W)``, scaled
                for each channel.
        """
        super().__init__()
        self.norm1 = make_norm(in_channels, style)
        self.conv1 = VideoConv3d(in_channels, out_channels, style)
        self.norm2 = make_norm(out_channels, style)
        self.conv2 = VideoConv3d(out_channels, out_channels, style)
        self.norm3: nn.Module = nn.Identity()
        self.conv_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.norm3 = nn.GroupNorm(1, in_channels, eps=1e-6)
            self.conv_shortcut = nn.Conv3d(in_channels, out_channels, 1)
        self.scale_shift_table = nn.Parameter(torch.zeros(4, in_channels)) if conditioned else None
        self.per_channel_scale1, self.per_channel_scale2 = (
            nn.Parameter(torch.zeros(out_channels, 1, 1)) if inject_noise else None
            for _ in range(2)
        )

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, noise: NoiseSource | None = None
    ) -> Tensor:
        """Apply the block.

        Args:
            x: ``(B, C, F, H, W)``.
            embedding: ``(B, 4 * C)``; required if conditioned.
            noise: Required if noise is injected.

        Returns:
            ``(B, out_channels, F, H, W)``.
        """
        rows: tuple[Tensor, ...] = ()
        if self.scale_shift_table is not None:
            assert embedding is not None
            rows = modulation(self.scale_shift_table, embedding)
        h = activate_and_convolve(x, self.norm1, self.conv1, rows[:2])
        _add_noise(h, self.per_channel_scale1, noise)
        h = activate_and_convolve(h, self.norm2, self.conv2, rows[2:])
        _add_noise(h, self.per_channel_scale2, noise)
        return h.add_(self.conv_shortcut(self.norm3(x)))


def _add_noise(x: Tensor, scale: Tensor | None, noise: NoiseSource | None) -> None:
    if scale is not None:
        x += (draw(noise, tuple(x.shape[-2:]), x) * scale).unsqueeze(1)


class ResidualStage(nn.Module):
    """Residual blocks of one width (``res_x``) that share a timestep embedding."""

    def __init__(
        self,
        channels: int,
        num_layers: int,
        style: LayerStyle,
        *,
        conditioned: bool = False,
        inject_noise: bool = False,
    ) -> None:
        super().__init__()
        self.time_embedder = TimeEmbedder(4 * channels) if conditioned else None
        self.res_blocks = nn.ModuleList(
            ResidualBlock(
                channels, channels, style, conditioned=conditioned, inject_noise=inject_noise
            )
            for _ in range(num_layers)
        )

    def forward(
        self, x: Tensor, timestep: Tensor | None = None, noise: NoiseSource | None = None
    ) -> Tensor:
        """``(B, C, F, H, W)`` to the same shape; conditioned ones need ``timestep``, ``(B,)``."""
        embedding = None
        if self.time_embedder is not None:
            assert timestep is not None
            embedding = self.time_embedder(timestep, x.dtype)
        for block in self.res_blocks:
            x = block(x, embedding, noise)
        return x


class Downsample(nn.Module):
    """Convolution and space-to-depth, plus a skip of averaged channels (``compress_*_res``)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: Stride, style: LayerStyle
    ) -> None:
        super().__init__()
        self.stride = stride
        self.out_channels = out_channels
        self.conv = VideoConv3d(in_channels, out_channels // math.prod(stride), style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to ``(B, out_channels, (F + p1 - 1) / p1, H / p2, W / p3)``."""
        if self.stride[0] == 2:
            # The first frame stands alone in time; repeated, it fills a block of its own.
            x = torch.cat([x[:, :, :1], x], dim=2)
        packed = space_to_depth(x, self.stride)
        skip = reduce(packed, "b (c group) f h w -> b c f h w", "mean", c=self.out_channels)
        return space_to_depth(self.conv(x), self.stride) + skip


class Upsample(nn.Module):
    """Convolution and depth-to-space; a residual one adds repeated channels (``compress_*``)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Stride,
        style: LayerStyle,
        *,
        residual: bool,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.residual = residual
        self.conv = VideoConv3d(in_channels, out_channels * math.prod(stride), style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to ``(B, out_channels, p1 * F - p1 + 1, p2 * H, p3 * W)``."""
        out = depth_to_space(self.conv(x), self.stride)
        if self.residual:
            skip = depth_to_space(x, self.stride)
            # Every group of channels gets the same skip.
            groups = torch.unflatten(out, 1, (-1, skip.shape[1]))
            groups += skip.unsqueeze(1)
        # Of the first block in time only its last frame is real, as ``Downsample`` repeated it.
        return out[:, :, self.stride[0] - 1 :]
