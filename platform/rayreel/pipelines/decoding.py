"""From latents to a clip: the last step of every pipeline."""

from collections.abc import Generator

import torch
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.models.tiling import TileSizeConfig, Tiling
from rayreel.models.video_vae import gaussian, tiled_decode, to_rgb
from rayreel.models.vocoder import decode_audio
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Audio, ClipStream, Latents, seeded_generator

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
        tiling: Of the picture; ``None`` takes the tiles that published pipelines decode with.

    Returns:
        Frames and sound on the CPU. Memory for the frames does not grow with their number.

    Raises:
        ValueError: If the tiling does not fit; when the first frames are read.
    """
    assert latents.video is not None, "every pipeline makes a picture"
    video = latents.video[None].to(ledger.device, ledger.dtype)
    factors = ledger.files.factors
    if tiling is None:
        tiling = TileSizeConfig.from_long_side(request.height, request.width, factor=factors.height)
    return ClipStream(
        frames=_frames(ledger, video, tiling, request.seed or 0),
        num_frames=(video.shape[2] - 1) * factors.time + 1,
        fps=request.fps,
        audio=None if latents.audio is None else _sound(ledger, latents.audio),
    )


@torch.inference_mode()
def _frames(
    ledger: ModelLedger, latent: Tensor, tiling: Tiling, seed: int
) -> Generator[Tensor, None, None]:
    noise = gaussian(seeded_generator(seed, "video/decode"))
    with ledger.video_decoder() as decoder:
        for chunk in tiled_decode(decoder, latent, tiling, noise=noise):
            for part in torch.split(chunk, CHUNK_FRAMES, dim=2):
                yield to_rgb(part)[0].cpu()
            # Or it would be in memory beside the next one while that is decoded.
            del chunk, part


def _sound(ledger: ModelLedger, latent: Tensor) -> Audio:
    batch = latent[None].to(ledger.device, ledger.dtype)
    with ledger.audio_decoder() as decoder, ledger.vocoder() as vocoder:
        waveform = decode_audio(decoder, vocoder, batch)[0].cpu()
        return Audio(waveform=waveform, sample_rate_hz=vocoder.sample_rate_hz)
