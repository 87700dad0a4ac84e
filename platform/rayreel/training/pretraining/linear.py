"""A video VAE that begins as a linear one, which is known without learning.

From random weights a deep autoencoder takes thousands of steps to come as far as principal
components of blocks of pixels come at once. So an encoder begins as these, block within block, and
a decoder as the least-squares way back; what is not linear is learned from there.

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

# Added to every channel: a norm divides by the length of a position, which alone tells bright from
# dark; beside a constant that is much longer, little of it is lost, and SiLU is nearly linear.
_CONSTANT, _SPREAD = 1.0, 0.4
_RIDGE = 1e-5
_SAMPLE = 4000
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
    for block in [encoder.conv_in, *encoder.down_blocks]:
        if isinstance(block, VideoConv3d):
            _compress(block, x, block.conv.out_channels, _SPREAD, _CONSTANT)
        x = block(x)
    h = F.silu(encoder.conv_norm_out(x))
    _compress(encoder.conv_out, h, encoder.latent_channels, 1.0, 0.0)


def _begin_decoder(decoder: VideoDecoder, clips: Tensor, latents: Tensor) -> None:
    extents: Stride = (*decoder.factors,)
    _fit(decoder.conv_in, latents, _features(clips, extents, decoder.conv_in.conv.out_channels))
    x = decoder.conv_in(latents)
    for block in decoder.up_blocks:
        if isinstance(block, Upsample):
            time, height, width = (e // s for e, s in zip(extents, block.stride, strict=True))
            extents = (time, height, width)
            channels = block.conv.conv.out_channels // math.prod(block.stride)
            wanted = _features(clips, extents, channels) - _skip(block, x, channels)
            _fit(block.conv, x, _blocks(wanted, block.stride))
        x = block(x)
    h = F.silu(decoder.conv_norm_out(x))
    _fit(decoder.conv_out, h, patchify(clips, decoder.patch_size))


def _compress(layer: VideoConv3d, x: Tensor, width: int, spread: float, constant: float) -> None:
    """Principal components of the blocks that a convolution halves, as its first outputs."""
    stride = _stride(layer)
    blocks = _rows(_blocks(x, stride))
    mean, basis = _components(blocks, width)
    scale = spread / ((blocks - mean) @ basis).std()
    taps = (slice(3 - stride[0], 3), *(slice(1, 1 + s) for s in stride[1:]))
    _set(layer, taps, (basis * scale).T, constant - mean @ basis * scale)


def _fit(layer: VideoConv3d, x: Tensor, target: Tensor) -> None:
    """Least squares from each position to what is wanted there."""
    given, wanted = _rows(x), _rows(target)
    given_mean, wanted_mean = given.mean(0), wanted.mean(0)
    given, wanted = given - given_mean, wanted - wanted_mean
    square = given.T @ given / len(given) + _RIDGE * torch.eye(given.shape[1])
    weight = torch.linalg.solve(square, given.T @ wanted / len(given)).T
    now = layer.frames_before
    here = (slice(now, now + 1), slice(1, 2), slice(1, 2))
    _set(layer, here, weight, wanted_mean - weight @ given_mean)


def _skip(block: Upsample, x: Tensor, width: int) -> Tensor:
    """What a block adds to its convolution."""
    if not block.residual:
        return torch.zeros(())
    skip = depth_to_space(x, block.stride)[:, :, block.stride[0] - 1 :]
    return skip.repeat(1, width // skip.shape[1], 1, 1, 1)


def _features(clips: Tensor, extents: Stride, width: int) -> Tensor:
    """Principal components of blocks of pixels, ``(B, width, F', H', W')``, on a constant."""
    blocks = _blocks(clips, extents)
    rows = _rows(blocks)
    mean, basis = _components(rows, width)
    found = (rows - mean) @ basis
    found = found * (_SPREAD / found.std()) + _CONSTANT
    grid = dict(zip("bfhw", (blocks.shape[0], *blocks.shape[2:]), strict=True))
    return rearrange(found, "(b f h w) c -> b c f h w", **grid)


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean ``(C,)`` of rows ``(N, C)``, and ``count`` directions ``(C, count)``, largest first."""
    few = rows[torch.randperm(len(rows))[:_SAMPLE]]
    mean, most = few.mean(0), min(few.shape)
    _, _, basis = torch.svd_lowrank(few - mean, q=min(count + _EXTRA, most), niter=3)
    # A wider layer has no more to say at first.
    return mean, F.pad(basis[:, :count], (0, max(count - most, 0)))


def _set(layer: VideoConv3d, taps: tuple[slice, ...], weight: Tensor, bias: Tensor) -> None:
    """Weights ``(width, C * taps)`` of the first outputs at some taps, and no others."""
    conv = layer.conv
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
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
