"""A video VAE that begins as a linear one, which is known without learning.

From random weights a deep autoencoder takes thousands of steps to come as far as principal
components of blocks of pixels come at once. So an encoder begins as these, block within block, and
a decoder as the least-squares way back. Norms and activations stand in the way twice, at the ends
of both. SiLU of a number less SiLU of its negative is that number: where both are there, and beside
them a constant so long that a norm divides all positions alike, what follows is linear again.

Reference:
    Krähenbühl et al. 2016, arXiv:1511.06856, for weights that begin as principal components of what
    a layer is given.

Letters: B batch, C channels, F frames, H height, W width, N positions.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.video_vae.blocks import Upsample
from rayreel.models.video_vae.ops import (
    Stride,
    VideoConv3d,
    depth_to_space,
    patchify,
    space_to_depth,
)
from rayreel.training.pretraining.least_squares import least_squares

# What says nothing, beside what does, of length 1, where a norm divides by both: alone, that would
# lose whether a position is bright or dark.
_CONSTANT = 8.0
# What a component has at least.
_LEAST_SPREAD = 1e-4
# Positions that say what is principal, and what least squares are of.
_SAMPLE, _FITTED = 4000, 40000
_EXTRA = 20


@torch.no_grad()
def start_linear(encoder: VideoEncoder, decoder: VideoDecoder, clips: Tensor, noise: float) -> None:
    """Set the weights of both.

    Args:
        encoder: Blocks that are not strided convolutions alone stay random.
        decoder: Not conditioned on anything.
        clips: float32 ``(B, 3, F, H, W)`` in [-1, 1].
        noise: Standard deviation of what latents are told with, beside theirs of about 1.
    """
    for module in [*encoder.modules(), *decoder.modules()]:
        if isinstance(module, nn.Conv3d):
            # PyTorch's own are so small that little of a clip comes through at first.
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            assert module.bias is not None, "it has one"
            nn.init.zeros_(module.bias)
    for name, weight in [*encoder.named_parameters(), *decoder.named_parameters()]:
        if name.endswith("conv2.conv.weight"):
            # What is added to a skip is nothing at first.
            nn.init.zeros_(weight)
    _begin_encoder(encoder, clips)
    latents = encoder(clips)
    _begin_decoder(decoder, clips, latents + noise * torch.randn(latents.shape))


def _begin_encoder(encoder: VideoEncoder, clips: Tensor) -> None:
    x = patchify(clips, encoder.patch_size)
    blocks = [encoder.conv_in, *encoder.down_blocks]
    last = max(index for index, block in enumerate(blocks) if isinstance(block, VideoConv3d))
    for index, block in enumerate(blocks):
        if isinstance(block, VideoConv3d):
            _compress(block, x, paired=index == last)
        x = block(x)
    h = F.silu(encoder.conv_norm_out(x))
    _level(encoder.conv_out, h, encoder.latent_channels)


def _begin_decoder(decoder: VideoDecoder, clips: Tensor, latents: Tensor) -> None:
    extents: Stride = (*decoder.factors,)
    _fit(decoder.conv_in, latents, _features(clips, extents, decoder.conv_in.conv.out_channels))
    x = decoder.conv_in(latents)
    last = max(index for index, one in enumerate(decoder.up_blocks) if isinstance(one, Upsample))
    for index, block in enumerate(decoder.up_blocks):
        if isinstance(block, Upsample):
            time, height, width = (e // s for e, s in zip(extents, block.stride, strict=True))
            extents = (time, height, width)
            channels = block.conv.conv.out_channels // math.prod(block.stride)
            wanted = _features(clips, extents, channels, paired=index == last)
            _fit(block.conv, x, _blocks(wanted - _skip(block, x, channels), block.stride))
        x = block(x)
    h = F.silu(decoder.conv_norm_out(x))
    _fit(decoder.conv_out, h, patchify(clips, decoder.patch_size))


def _compress(layer: VideoConv3d, x: Tensor, *, paired: bool) -> None:
    """Principal components of the blocks that a convolution halves."""
    rows = _rows(_blocks(x, _stride(layer)))
    width = layer.conv.out_channels
    mean, basis = _components(rows, _said(width, paired))
    basis = basis / ((rows - mean) @ basis).square().sum(1).mean().sqrt()
    weight, bias = basis.T, -mean @ basis
    if paired:
        weight = torch.cat([weight, -weight])
        bias = torch.cat([bias, -bias, torch.tensor([_CONSTANT, -_CONSTANT])])
    _set(layer, weight, bias)


def _level(layer: VideoConv3d, x: Tensor, width: int) -> None:
    """Principal components of positions, each as large as the root of its deviation.

    Were all as large, a transformer would learn of details as much as of colours, and noise would
    hide both at once. As they are, details would be lost in what it gets slightly wrong.
    """
    rows = _rows(x)
    mean, basis = _components(rows, width)
    deviation = ((rows - mean) @ basis).std(0).clamp(min=_LEAST_SPREAD)
    basis = basis / (deviation * deviation.mean()).sqrt()
    _set(layer, basis.T, -mean @ basis)


def _fit(layer: VideoConv3d, x: Tensor, target: Tensor) -> None:
    """Least squares from all that a convolution sees of a position to what is wanted there."""
    wanted = _rows(target)
    chosen = torch.randperm(len(wanted))[:_FITTED]
    weight, bias = least_squares(_seen(layer, x, chosen), wanted[chosen])
    conv = layer.conv
    assert conv.bias is not None
    conv.weight.copy_(weight.reshape(conv.weight.shape))
    conv.bias.copy_(bias)


def _seen(layer: VideoConv3d, x: Tensor, chosen: Tensor) -> Tensor:
    """What a convolution sees of some positions, ``(N, C * 27)``."""
    x = layer.bordered(x)
    x = x if layer.reflects else F.pad(x, (1, 1, 1, 1))
    windows = x.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    windows = rearrange(windows, "b c f h w t r s -> b f h w c t r s")
    clip, frame, row, column = torch.unravel_index(chosen, windows.shape[:4])
    return windows[clip, frame, row, column].flatten(1)


def _said(width: int, paired: bool) -> int:
    """How many numbers ``width`` channels say."""
    return width // 2 - 1 if paired else width


def _skip(block: Upsample, x: Tensor, width: int) -> Tensor:
    """What a block adds to its convolution."""
    if not block.residual:
        return torch.zeros(())
    skip = depth_to_space(x, block.stride)[:, :, block.stride[0] - 1 :]
    return skip.repeat(1, width // skip.shape[1], 1, 1, 1)


def _features(clips: Tensor, extents: Stride, width: int, *, paired: bool = False) -> Tensor:
    """Principal components of blocks of pixels, ``(B, width, F', H', W')``."""
    blocks = _blocks(clips, extents)
    rows = _rows(blocks)
    mean, basis = _components(rows, _said(width, paired))
    found = (rows - mean) @ basis
    found = found / found.square().sum(1).mean().sqrt()
    if paired:
        constant = torch.full((len(found), width // 2 - found.shape[1]), _CONSTANT)
        found = torch.cat([found, constant], dim=1)
        found = torch.cat([found, -found], dim=1)
        # An odd channel says nothing.
        found = F.pad(found, (0, width - found.shape[1]))
    grid = dict(zip("bfhw", (blocks.shape[0], *blocks.shape[2:]), strict=True))
    return rearrange(found, "(b f h w) c -> b c f h w", **grid)


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean ``(C,)`` of rows ``(N, C)``, and ``count`` directions ``(C, count)``, largest first."""
    few = rows[torch.randperm(len(rows))[:_SAMPLE]]
    mean, most = few.mean(0), min(few.shape)
    _, _, basis = torch.svd_lowrank(few - mean, q=min(count + _EXTRA, most), niter=3)
    # A wider layer has no more to say at first.
    return mean, F.pad(basis[:, :count], (0, max(count - most, 0)))


def _set(layer: VideoConv3d, weight: Tensor, bias: Tensor) -> None:
    """Weights ``(width, C * taps)`` of the first outputs at the taps of a block, and no others."""
    conv, stride = layer.conv, _stride(layer)
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    taps = (slice(3 - stride[0], 3), *(slice(1, 1 + s) for s in stride[1:]))
    at = (slice(len(weight)), slice(None), *taps)
    conv.weight[at] = weight.reshape(conv.weight[at].shape)
    conv.bias[: len(bias)] = bias


def _blocks(x: Tensor, stride: Stride) -> Tensor:
    # As in a causal network, the first frame stands for all that would be before it.
    return space_to_depth(torch.cat([*[x[:, :, :1]] * (stride[0] - 1), x], dim=2), stride)


def _rows(x: Tensor) -> Tensor:
    return rearrange(x, "b c f h w -> (b f h w) c")


def _stride(layer: VideoConv3d) -> Stride:
    time, height, width = layer.conv.stride
    return time, height, width
