"""Convolutional layers of the audio VAE.

Letters: B batch, C channels, H height (time), W width (mel bins).
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from rayreel.config.model import AudioNetworkConfig
from rayreel.models.attention import scaled_dot_product
from rayreel.models.norms import rms_norm


def pixel_norm(x: Tensor) -> Tensor:
    """Divide each position by its root mean square over the channels ``(B, C, H, W)``."""
    return rms_norm(x.movedim(1, -1), eps=1e-6).movedim(-1, 1)


class CausalConv2d(nn.Module):
    """Convolution that keeps the size and, along one axis, sees only what came before."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, axis: str) -> None:
        """Make the convolution.

        Args:
            in_channels: C of the input.
            out_channels: C of the output.
            kernel_size: Odd.
            axis: ``height`` or ``width``, padded at its start only; ``none`` pads both alike.
        """
        super().__init__()
        centred = ((kernel_size - 1) // 2, kernel_size // 2)
        causal = (kernel_size - 1, 0)
        self.padding = (causal if axis == "width" else centred) + (
            causal if axis == "height" else centred
        )
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same size."""
        return self.conv(F.pad(x, self.padding))


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a skip, which a 1x1 convolution widens where needed."""

    def __init__(self, in_channels: int, out_channels: int, axis: str) -> None:
        super().__init__()
        self.conv1 = CausalConv2d(in_channels, out_channels, 3, axis)
        self.conv2 = CausalConv2d(out_channels, out_channels, 3, axis)
        self.nin_shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else CausalConv2d(in_channels, out_channels, 1, axis)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``; only the channels change."""
        h = self.conv1(F.silu(pixel_norm(x)))
        h = self.conv2(F.silu(pixel_norm(h)))
        return self.nin_shortcut(x) + h


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions. The published files do not use it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        h = pixel_norm(x)
        # One head over the flattened positions: (B, H*W, 1, C).
        q, k, v = (
            layer(h).flatten(2).transpose(1, 2).unsqueeze(2) for layer in (self.q, self.k, self.v)
        )
        attended = scaled_dot_product(q, k, v, None).squeeze(2).transpose(1, 2)
        return x + self.proj_out(attended.reshape(x.shape))


class Downsample(nn.Module):
    """Strided convolution that halves height and width."""

    def __init__(self, channels: int, axis: str) -> None:
        super().__init__()
        causal, trailing = (2, 0), (0, 1)
        self.padding = (causal if axis == "width" else trailing) + (
            causal if axis == "height" else trailing
        )
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``: the causal axis to ``ceil(n / 2)``, others to ``floor(n / 2)``."""
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Nearest-neighbour doubling of height and width, then a convolution."""

    def __init__(self, channels: int, axis: str) -> None:
        super().__init__()
        self.axis = axis
        self.conv = CausalConv2d(channels, channels, 3, axis)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``: the causal axis to ``2n - 1``, others to ``2n``."""
        x = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        # The first position has no predecessor to share its latent with, so it is kept once.
        if self.axis == "height":
            return x[:, :, 1:]
        return x[..., 1:] if self.axis == "width" else x


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where configured."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        level: int,
        num_blocks: int,
        config: AudioNetworkConfig,
    ) -> None:
        """Make the blocks.

        Args:
            in_channels: C of the input.
            out_channels: C of the output.
            level: Halvings between the spectrogram and this resolution.
            num_blocks: Residual blocks.
            config: Of the network.
        """
        super().__init__()
        attention = config.resolution // 2**level in config.attn_resolutions
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(
            ResidualBlock(before, after, config.causality_axis)
            for before, after in pairwise(widths)
        )
        self.attn = nn.ModuleList(
            AttentionBlock(out_channels) if attention else nn.Identity() for _ in self.block
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``; only the channels change."""
        for block, attn in zip(self.block, self.attn, strict=True):
            x = attn(block(x))
        return x


class Middle(nn.Module):
    """Residual blocks at the lowest resolution, around attention where configured."""

    def __init__(self, channels: int, config: AudioNetworkConfig) -> None:
        """Args: channels: C; config: Of the network."""
        super().__init__()
        attention = config.mid_block_add_attention
        self.block_1 = ResidualBlock(channels, channels, config.causality_axis)
        self.attn_1 = AttentionBlock(channels) if attention else nn.Identity()
        self.block_2 = ResidualBlock(channels, channels, config.causality_axis)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))
