"""Vocoder: mel spectrogram to waveform."""

from rayreel.models.vocoder.bandwidth import BandwidthExtendedVocoder
from rayreel.models.vocoder.decode import decode_audio, make_vocoder
from rayreel.models.vocoder.generator import Vocoder
from rayreel.models.vocoder.tiled import tiled_audio_decode

__all__ = [
    "BandwidthExtendedVocoder",
    "Vocoder",
    "decode_audio",
    "make_vocoder",
    "tiled_audio_decode",
]
