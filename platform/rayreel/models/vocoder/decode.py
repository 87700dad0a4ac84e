"""From a generated latent to sound."""

import torch
from torch import Tensor

from rayreel.config.model import VocoderConfig
from rayreel.models.audio_vae.decoder import AudioDecoder
from rayreel.models.audio_vae.tiled import TILE_FRAMES
from rayreel.models.vocoder.bandwidth import BandwidthExtendedVocoder
from rayreel.models.vocoder.generator import Vocoder
from rayreel.models.vocoder.tiled import tiled_audio_decode


def make_vocoder(config: VocoderConfig) -> Vocoder | BandwidthExtendedVocoder:
    """The vocoder that a config describes: with bandwidth extension if it has a ``bwe`` section."""
    return Vocoder(config) if config.bwe is None else BandwidthExtendedVocoder(config)


def decode_audio(
    decoder: AudioDecoder, vocoder: Vocoder | BandwidthExtendedVocoder, latent: Tensor
) -> Tensor:
    """Decode a latent to sound, a long one in tiles: their result is that of the whole.

    Args:
        decoder: Latent to mel spectrogram.
        vocoder: Mel spectrogram to waveform; its ``sample_rate_hz`` is the rate of the result.
        latent: Normalised ``(B, C, frames, bins)``.

    Returns:
        Float32 waveform ``(B, 2, samples)`` in [-1, 1].
    """
    if latent.shape[2] > TILE_FRAMES:
        return torch.cat(list(tiled_audio_decode(decoder, vocoder, latent, TILE_FRAMES)), dim=-1)
    mel = decoder(latent.to(decoder.dtype))
    return vocoder(mel.to(vocoder.dtype)).float()
