"""Operations of the video VAE: padded convolution, norms, packing positions into channels, noise.

Letters: B batch, C channels, F frames, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

NoiseSource = Callable[[tuple[int, ...]], Tensor]
"""Draws standard normal noise of a shape; called once per draw, in the order of the layers."""

Stride = tuple[int, int, int]
"""Factors along time, height and width."""

STRIDES: dict[str, Stride] = {"time": (2, 1, 1), "space": (1, 2, 2), "all": (2, 2, 2)}


@dataclass(frozen=True, slots=True)
class LayerStyle:
    """What all layers of one network share.

    Attributes:
        causal: Whether a frame sees only earlier ones.
        padding: What stands beyond the left, right, upper and lower border.
        norm: Kind of the norms.
    """

    causal: bool
    padding: Literal["zeros", "reflect"]
    norm: Literal["pixel_norm", "group_norm"]


class VideoConv3d(nn.Module):
    """Convolution over 3 x 3 x 3 positions that repeats the border frames in time."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: LayerStyle,
        *,
        stride: int | Stride = 1,
    ) -> None:
        super().__init__()
        self.frames_before, self.frames_after = (2, 0) if style.causal else (1, 1)
        self.conv = nn.Conv3d(
            in_channels, out_channels, 3, stride, padding=(0, 1, 1), padding_mode=style.padding
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to ``(B, out_channels, F, H, W)``, extents divided by the stride."""
        before, after = [x[:, :, :1]] * self.frames_before, [x[:, :, -1:]] * self.frames_after
        return self.conv(torch.cat([*before, x, *after], dim=2))


class PixelNorm(nn.Module):
    """Divides each position by the root mean square of its channels."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to the same shape."""
        return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def make_norm(channels: int, style: LayerStyle) -> nn.Module:
    """Norm in front of an activation."""
    if style.norm == "group_norm":
        return nn.GroupNorm(32, channels, eps=1e-6)
    return PixelNorm()


def space_to_depth(x: Tensor, stride: Stride) -> Tensor:
    """Pack blocks of positions into channels.

    Args:
        x: ``(B, C, F, H, W)``, extents divisible by the stride.
        stride: ``(p1, p2, p3)``.

    Returns:
        ``(B, C * p1 * p2 * p3, F / p1, H / p2, W / p3)``; the column in the block varies fastest.
    """
    p1, p2, p3 = stride
    return rearrange(x, "b c (f p1) (h p2) (w p3) -> b (c p1 p2 p3) f h w", p1=p1, p2=p2, p3=p3)


def depth_to_space(x: Tensor, stride: Stride) -> Tensor:
    """Inverse of ``space_to_depth``: pixel shuffle in three dimensions."""
    p1, p2, p3 = stride
    return rearrange(x, "b (c p1 p2 p3) f h w -> b c (f p1) (h p2) (w p3)", p1=p1, p2=p2, p3=p3)


def patchify(video: Tensor, patch: int) -> Tensor:
    """Pack square patches into channels: ``(B, C, F, H, W)`` to ``(B, C * patch**2, F, ...)``.

    Unlike in ``space_to_depth``, the row in the patch varies fastest: published weights expect it.
    """
    return rearrange(video, "b c f (h q) (w r) -> b (c r q) f h w", q=patch, r=patch)


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """Inverse of ``patchify``."""
    return rearrange(x, "b (c r q) f h w -> b c f (h q) (w r)", q=patch, r=patch)


def gaussian(generator: torch.Generator) -> NoiseSource:
    """Noise from a CPU generator, float32, independent of the device that uses it."""
    return lambda shape: torch.randn(shape, generator=generator)


def draw(noise: NoiseSource | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Noise of a shape, with device and dtype of ``like``.

    Raises:
        ValueError: If there is no noise source.
    """
    if noise is None:
        raise ValueError("this decoder draws noise; pass noise=gaussian(generator)")
    return noise(shape).to(like)
