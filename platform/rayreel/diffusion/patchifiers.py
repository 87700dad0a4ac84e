"""Latents to tokens and back, and where each token lies in time and space.

Letters: B batch, C channels, F frames, H height, W width, T tokens, D width.
"""

import torch
from einops import rearrange
from torch import Tensor

from rayreel.types import AudioLatentShape, ScaleFactors, VideoLatentShape


def patchify_video(latent: Tensor, patch_size: int = 1) -> Tensor:
    """``(B, C, F, H, W)`` to ``(B, T, D)``: frame by frame, row by row, channel slowest in D."""
    return rearrange(latent, "b c f (h p) (w q) -> b (f h w) (c p q)", p=patch_size, q=patch_size)


def unpatchify_video(tokens: Tensor, shape: VideoLatentShape, patch_size: int = 1) -> Tensor:
    """Inverse of ``patchify_video``; frames, height and width come from ``shape``."""
    return rearrange(
        tokens,
        "b (f h w) (c p q) -> b c f (h p) (w q)",
        f=shape.frames,
        h=shape.height // patch_size,
        w=shape.width // patch_size,
        p=patch_size,
        q=patch_size,
    )


def patchify_audio(latent: Tensor) -> Tensor:
    """``(B, C, frames, bins)`` to ``(B, T, D)``: a token per frame, channel slowest in D."""
    return rearrange(latent, "b c t f -> b t (c f)")


def unpatchify_audio(tokens: Tensor, shape: AudioLatentShape) -> Tensor:
    """Inverse of ``patchify_audio``; the number of bins comes from ``shape``."""
    return rearrange(tokens, "b t (c f) -> b c t f", f=shape.bins)


def latent_bounds(shape: VideoLatentShape, patch_size: int = 1) -> Tensor:
    """Start and end of each token in latent frames, rows and columns: int64 ``(B, 3, T, 2)``."""
    steps = (1, patch_size, patch_size)
    sizes = (shape.frames, shape.height, shape.width)
    axes = [torch.arange(0, size, step) for size, step in zip(sizes, steps, strict=True)]
    start = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    end = start + torch.tensor(steps)[:, None]
    return torch.stack((start, end), dim=-1).expand(shape.batch, -1, -1, -1)


def pixel_bounds(bounds: Tensor, factors: ScaleFactors, *, causal: bool) -> Tensor:
    """Latent bounds in pixel frames, pixel rows and pixel columns, int64 ``(B, 3, T, 2)``.

    Args:
        bounds: What ``latent_bounds`` returns.
        factors: Pixels per latent position.
        causal: Whether the first latent frame holds a single pixel frame, as the video VAE encodes.
    """
    pixels = bounds * torch.tensor(factors)[:, None, None]
    if causal:
        pixels[:, 0] = (pixels[:, 0] + 1 - factors.time).clamp(min=0)
    return pixels


def video_positions(
    shape: VideoLatentShape, *, fps: float, factors: ScaleFactors, causal: bool = True
) -> Tensor:
    """Positions as the transformer reads them: seconds, pixel rows and pixel columns.

    Returns:
        Float32 ``(B, 3, T, 2)``: start and end of each token.
    """
    positions = pixel_bounds(latent_bounds(shape), factors, causal=causal).float()
    positions[:, 0] /= fps
    return positions


def audio_positions(
    shape: AudioLatentShape,
    *,
    sample_rate_hz: int = 16000,
    hop_length: int = 160,
    downsample: int = 4,
    shift: int = 0,
    causal: bool = True,
) -> Tensor:
    """Start and end of each audio token in seconds.

    Args:
        shape: Latent shape; its batch and frames count.
        sample_rate_hz: Rate of the waveform behind the mel spectrogram.
        hop_length: Samples per mel frame.
        downsample: Mel frames per latent frame.
        shift: Latent frames to start at.
        causal: Whether the first latent frame holds a single mel frame.

    Returns:
        Float32 ``(B, 1, T, 2)``.
    """
    edges = torch.arange(shift, shift + shape.frames + 1) * downsample
    if causal:
        edges = (edges + 1 - downsample).clamp(min=0)
    seconds = edges.float() * hop_length / sample_rate_hz
    bounds = torch.stack((seconds[:-1], seconds[1:]), dim=-1)
    return bounds.expand(shape.batch, 1, -1, -1)
