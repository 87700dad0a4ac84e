"""What a request goes in with: its text, its files as latents, and where a chain left off."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rayreel.config.conditions import ImageCondition
from rayreel.config.request import RenderRequest
from rayreel.diffusion.states import VideoTarget
from rayreel.errors import MediaError
from rayreel.media.image import fit, load_image, recompress, to_model_input
from rayreel.media.sound import AAC_RATES_HZ
from rayreel.models.audio_vae import encode_waveform, resample, to_stereo
from rayreel.models.tiling import TileSizeConfig
from rayreel.models.video_vae import tiled_encode
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Audio, TextContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """The end of one chunk of a chain, that the next one starts from; or the other way round.

    Attributes:
        video: Latent frames of the last chunk at full size, ``(C, K, H, W)``.
        audio: Its sound over the same time, ``(C, frames, bins)``; ``None`` without sound.
        backward: Whether the new chunk ends here instead of starting here.
        first: Latent of the single frame before ``video`` that the new chunk leads to, ``(C, 1, H,
            W)``; of backward ones alone.
    """

    video: Tensor
    audio: Tensor | None
    backward: bool = False
    first: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRequest:
    """A resolved request and its text.

    Attributes:
        request: The request, every field set.
        context: The prompt.
        negative: The negative prompt, where the request is guided.
        handover: Where the chain that it is a chunk of left off.
    """

    request: RenderRequest
    context: TextContext
    negative: TextContext | None
    handover: Handover | None = None


@torch.inference_mode()
def encode_image(ledger: ModelLedger, image: ImageCondition, target: VideoTarget) -> Tensor:
    """An image at the target's size as a latent ``(1, C, 1, H, W)``; raises ``MediaError``."""
    pixels = recompress(load_image(image.path), image.crf or 0)
    frame = to_model_input(fit(pixels, *_size(ledger, target)))
    with ledger.video_encoder() as encoder:
        latent: Tensor = encoder(frame.to(ledger.device, ledger.dtype))
    return latent


@torch.inference_mode()
def encode_frames(ledger: ModelLedger, frames: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """Frames at a size as a latent ``(1, C, F, H, W)``, long or large ones in tiles.

    Args:
        ledger: For the video encoder.
        frames: RGB ``uint8``, single ones or chunks ``(F, H, W, 3)``, read one after the other: at
            their own size they need not fit the memory. Frames past the last 8k + 1 are left out.
        size: Height and width to scale and crop them to.
    """
    fitted = [to_model_input(fit(part, *size)).to(ledger.dtype) for part in frames]
    whole = torch.cat(fitted, dim=2)
    factor = ledger.files.factors.time
    video = whole[:, :, : (whole.shape[2] - 1) // factor * factor + 1].to(ledger.device)
    tiling = TileSizeConfig.from_long_side(*size, factor=ledger.files.factors.height)
    with ledger.video_encoder() as encoder:
        return tiled_encode(encoder, video, tiling)


@torch.inference_mode()
def encode_sound(ledger: ModelLedger, audio: Audio, frames: int) -> Tensor:
    """Sound as a latent ``(1, C, frames, bins)``.

    Raises:
        MediaError: If the sound is too short for so many latent frames.
    """
    # Encoding rounds the end down: some silence behind it makes up for less than a latent frame.
    rate = audio.sample_rate_hz
    latents_per_second = ledger.files.audio_vae.latents_per_second
    padding = torch.zeros(audio.waveform.shape[0], round(2 * rate / latents_per_second))
    waveform = to_stereo(torch.cat([audio.waveform, padding], dim=1))[None]
    with ledger.audio_encoder() as encoder:
        latent = encode_waveform(encoder, waveform.to(ledger.device), rate)
    if latent.shape[2] < frames:
        raise MediaError(
            f"the sound lasts {audio.waveform.shape[1] / rate:.2f} s; expected at least "
            f"{frames / latents_per_second:.2f} s"
        )
    return latent[:, :, :frames].to(ledger.dtype)


def encodable(audio: Audio) -> Audio:
    """The sound at the nearest rate that AAC knows, where its own is none."""
    rate = audio.sample_rate_hz
    nearest = min(AAC_RATES_HZ, key=lambda known: (abs(known - rate), -known))
    waveform = resample(audio.waveform, rate, nearest)
    return Audio(waveform=waveform, sample_rate_hz=nearest)


def _size(ledger: ModelLedger, target: VideoTarget) -> tuple[int, int]:
    factors, shape = ledger.files.factors, target.shape
    return shape.height * factors.height, shape.width * factors.width
