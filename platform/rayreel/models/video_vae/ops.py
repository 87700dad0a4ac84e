"""Operations of the video VAE: padded convolution, norms, packing positions into channels, noise.

Letters: B batch, C channels, F frames, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
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
        self.reflects = style.padding == "reflect"
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to ``(B, out_channels, F, H, W)``, extents divided by the stride."""
        if self.copies(x):
            return self._convolve(self.bordered(x))
        padded, inner = self.room(x)
        inner.copy_(x)
        return self.convolve(padded)

    def bordered(self, x: Tensor) -> Tensor:
        """An input with its border frames, and with its margins unless they are zeros."""
        before, after = [x[:, :, :1]] * self.frames_before, [x[:, :, -1:]] * self.frames_after
        x = torch.cat([*before, x, *after], dim=2)
        return F.pad(x, (1, 1, 1, 1, 0, 0), "reflect") if self.reflects else x

    def copies(self, x: Tensor) -> bool:
        """Whether an input is so small that padding it costs less than preparing ``room``."""
        return x.numel() < 2**15

    def room(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Uninitialised memory for an input and its borders.

        What comes before the convolution writes to its place among the borders: padding it
        afterwards would copy it once more.

        Args:
            x: ``(B, C, F, H, W)``; shape, dtype and device of the input.

        Returns:
            All of it, as ``convolve`` takes it, and the part that the caller fills, like ``x``.
        """
        batch, channels, frames, height, width = x.shape
        margin = 1 if self.reflects else 0
        padded = torch.empty(
            (
                batch,
                channels,
                self.frames_before + frames + self.frames_after,
                height + 2 * margin,
                width + 2 * margin,
            ),
            dtype=x.dtype,
            device=x.device,
            memory_format=_layout(channels, frames * height * width),
        )
        time = slice(self.frames_before, self.frames_before + frames)
        rows, columns = slice(margin, margin + height), slice(margin, margin + width)
        return padded, padded[:, :, time, rows, columns]

    def convolve(self, padded: Tensor) -> Tensor:
        """Fill the borders of what ``room`` returned, and convolve it."""
        start, end = self.frames_before, padded.shape[2] - self.frames_after
        if self.reflects:
            clip = padded[:, :, start:end]
            clip[..., 0], clip[..., -1] = clip[..., 2], clip[..., -3]
            clip[..., 0, :], clip[..., -1, :] = clip[..., 2, :], clip[..., -3, :]
        padded[:, :, :start] = padded[:, :, start : start + 1]
        padded[:, :, end:] = padded[:, :, end - 1 : end]
        return self._convolve(padded)

    def _convolve(self, padded: Tensor) -> Tensor:
        weight, bias, stride = self.conv.weight, self.conv.bias, self.conv.stride
        padding = (0, 0, 0) if self.reflects else (0, 1, 1)
        if _prefers_onednn(padded, weight):
            return torch.mkldnn_convolution(padded, weight, bias, padding, stride, (1, 1, 1), 1)
        return F.conv3d(padded, weight, bias, stride, padding)


def _layout(channels: int, positions: int) -> torch.memory_format:
    """Layout in which a convolution is fastest.

    Channels last needs no reordering of the activations, but a slower one of the weights, which
    tells where weights are large and positions few.
    """
    return torch.contiguous_format if positions < 4 * channels else torch.channels_last_3d


def _prefers_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to choose the kernel that PyTorch would not.

    On a CPU it judges a volume by channels, frames and rows, and takes what it holds for small to a
    matrix product of unfolded positions: up to ten times slower, and 27 times the memory. That pays
    for very small volumes alone, and for so few positions that reordering the weights takes longer.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() >= 2048
        and x.shape[2:].numel() >= weight.numel() // 2**15
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled)
    )


class PixelNorm(nn.Module):
    """Divides each position by the root mean square of its channels."""

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """``(B, C, F, H, W)`` to the same shape, written to ``out`` where it is given."""
        # The norm reads x once, where a mean of squares would also write them.
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        rms = (length.square() / x.shape[1] + 1e-8).sqrt()
        return x / rms if out is None else torch.div(x, rms, out=out)


def activate_and_convolve(
    x: Tensor, norm: nn.Module, conv: VideoConv3d, modulation: tuple[Tensor, ...] = ()
) -> Tensor:
    """Normalise, modulate, apply SiLU and convolve; in place, unless gradients are wanted.

    Args:
        x: ``(B, C, F, H, W)``, kept as it is.
        norm: From ``make_norm``.
        conv: What follows.
        modulation: Shift and scale, or nothing.

    Returns:
        ``(B, out_channels, F, H, W)``.
    """
    if conv.copies(x) or torch.is_grad_enabled():
        return conv(_activate(norm(x), modulation))
    padded, h = conv.room(x)
    if isinstance(norm, PixelNorm):
        norm(x, out=h)
    else:
        h.copy_(norm(x))
    _activate(h, modulation)
    return conv.convolve(padded)


def _activate(h: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
    if modulation:
        shift, scale = modulation
        h.mul_(1 + scale).add_(shift)
    return F.silu(h, inplace=True)


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
    batch, channels, *extents = x.shape
    channels //= p1 * p2 * p3
    frames, height, width = (extent * p for extent, p in zip(extents, stride, strict=True))
    out = torch.empty(
        (batch, channels, frames, height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=_layout(channels, frames * height * width),
    )
    blocks = rearrange(out, "b c (f p1) (h p2) (w p3) -> b c p1 p2 p3 f h w", p1=p1, p2=p2, p3=p3)
    blocks.copy_(rearrange(x, "b (c p1 p2 p3) f h w -> b c p1 p2 p3 f h w", p1=p1, p2=p2, p3=p3))
    return out


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
