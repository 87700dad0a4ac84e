"""Encoding and decoding in overlapping tiles, for clips that do not fit into memory as a whole.

A tile is a clip of its own. Near their borders tiles differ from the whole clip, which is why they
overlap and are blended.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rayreel.models.tiling import Slices, Tiling, blend, decode_plan, encode_plan
from rayreel.models.video_vae.decoder import VideoDecoder
from rayreel.models.video_vae.encoder import VideoEncoder, latent_shape
from rayreel.models.video_vae.ops import NoiseSource


def tiled_decode(
    decoder: VideoDecoder,
    latent: Tensor,
    tiling: Tiling,
    *,
    timestep: Tensor | None = None,
    noise: NoiseSource | None = None,
) -> Iterator[Tensor]:
    """Decode tile by tile, handing out frames as soon as no later tile changes them.

    Args:
        decoder: Called once per tile; each call draws its own noise.
        latent: ``(B, C, F, H, W)``.
        tiling: Size or number of tiles.
        timestep: As in ``VideoDecoder.forward``.
        noise: As in ``VideoDecoder.forward``.

    Yields:
        Chunks ``(B, 3, frames, H * factor, W * factor)`` in the dtype of ``latent``: along time,
        they make up the clip.

    Raises:
        ValueError: If the tiling does not fit.
    """
    frames, height, width = latent.shape[2:]
    plan = decode_plan((frames, height, width), tiling, decoder.factors)

    def decode(tile: Slices) -> Tensor:
        return decoder(latent[:, :, *tile], timestep=timestep, noise=noise)

    yield from blend(plan, decode)


def tiled_encode(encoder: VideoEncoder, video: Tensor, tiling: Tiling) -> Tensor:
    """Encode tile by tile.

    Args:
        encoder: Called once per tile.
        video: ``(B, 3, F, H, W)`` in [-1, 1].
        tiling: Size or number of tiles; sizes overlap by at least 16 frames and 64 pixels.

    Returns:
        Latent as ``VideoEncoder.forward`` returns it.

    Raises:
        ValueError: If the tiling or the video does not fit.
    """
    shape = latent_shape(video, encoder.factors, encoder.latent_channels)
    plan = encode_plan((shape.frames, shape.height, shape.width), tiling, encoder.factors)

    def encode(tile: Slices) -> Tensor:
        return encoder(video[:, :, *tile])

    return torch.cat(list(blend(plan, encode)), dim=2)
