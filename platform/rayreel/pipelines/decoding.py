"""From latents to a clip: the last step of every pipeline."""

import logging
import sys
from collections.abc import Generator
from functools import partial

import torch
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.models.tiling import TileSizeConfig, Tiling
from rayreel.models.video_vae import gaussian, tiled_decode, to_rgb
from rayreel.models.video_vae.fitting import auto_tiling
from rayreel.models.vocoder import decode_audio
from rayreel.pipelines.devices import SMALL_TILE, largest_tile, settle, usable_memory
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Audio, ClipStream, Latents, seeded_generator

log = logging.getLogger(__name__)

CHUNK_FRAMES = 8
"""Frames that are converted to RGB at once: floats of a whole tile would take many times more."""


@torch.inference_mode()
def decode(
    ledger: ModelLedger,
    request: RenderRequest,
    latents: Latents,
    *,
    tiling: Tiling | None = None,
) -> ClipStream:
    """Decode one clip: its sound now, its frames when they are read.

    Args:
        ledger: For the decoders.
        request: Of the clip.
        latents: What the pipeline made.
        tiling: Of the picture; ``None`` takes the tiles that published pipelines decode with, or
            smaller ones where the device has too little memory for them.

    Returns:
        Frames and sound on the CPU. Memory for the frames does not grow with their number.

    Raises:
        ValueError: If the tiling does not fit; when the first frames are read.
        MemoryError: If no tile fits the memory; likewise.
    """
    audio = None if latents.audio is None else _sound(ledger, latents.audio)
    if latents.video is None:
        return ClipStream(frames=_no_frames(), num_frames=0, fps=request.fps, audio=audio)
    video = latents.video[None].to(ledger.device, ledger.dtype)
    return ClipStream(
        frames=_frames(ledger, video, tiling, request.seed or 0),
        num_frames=(video.shape[2] - 1) * ledger.files.factors.time + 1,
        fps=request.fps,
        audio=audio,
    )


@torch.inference_mode()
def _frames(
    ledger: ModelLedger, latent: Tensor, tiling: Tiling | None, seed: int
) -> Generator[Tensor, None, None]:
    noise = gaussian(seeded_generator(seed, "video/decode"))
    with ledger.video_decoder() as decoder:
        tiles = tiling or _fitting_tiles(ledger, latent)
        for chunk in tiled_decode(decoder, latent, tiles, noise=noise):
            for part in torch.split(chunk, CHUNK_FRAMES, dim=2):
                yield to_rgb(part)[0].cpu()
            # Or it would be in memory beside the next one while that is decoded.
            del chunk, part
            settle(ledger.device)


def _no_frames() -> Generator[Tensor, None, None]:
    yield from ()


def _fitting_tiles(ledger: ModelLedger, latent: Tensor) -> TileSizeConfig:
    """The usual tiles, or smaller ones where the device is too full: then frames may differ."""
    frames, height, width = latent.shape[2:]
    choose = partial(
        auto_tiling,
        ledger.files.video_vae,
        (frames, height, width),
        itemsize=ledger.dtype.itemsize,
        largest=SMALL_TILE if ledger.small_tiles else largest_tile(ledger.device),
    )
    free = usable_memory(ledger.device)
    tiles = choose(free_bytes=free)
    if tiles != choose(free_bytes=sys.maxsize):
        log.warning(
            "decoding in tiles of %d frames of %dx%d, smaller than the usual ones: %.2f GiB of "
            "%s memory can be used",
            *(tiles.frames.tile_size, tiles.height.tile_size, tiles.width.tile_size),
            *(free / 2**30, ledger.device.type),
        )
    return tiles


def _sound(ledger: ModelLedger, latent: Tensor) -> Audio:
    batch = latent[None].to(ledger.device, ledger.dtype)
    with ledger.audio_decoder() as decoder, ledger.vocoder() as vocoder:
        waveform = decode_audio(decoder, vocoder, batch)[0].cpu()
        return Audio(waveform=waveform, sample_rate_hz=vocoder.sample_rate_hz)
