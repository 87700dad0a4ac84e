"""Audio VAE: waveform to mel spectrogram to latent, and latent back to mel spectrogram."""

from rayreel.models.audio_vae.decoder import AudioDecoder
from rayreel.models.audio_vae.encoder import AudioEncoder
from rayreel.models.audio_vae.mel import log_mel
from rayreel.models.audio_vae.resample import resample
from rayreel.models.audio_vae.tiled import tiled_audio_encode
from rayreel.models.audio_vae.waveform import encode_waveform, to_stereo

__all__ = [
    "AudioDecoder",
    "AudioEncoder",
    "encode_waveform",
    "log_mel",
    "resample",
    "tiled_audio_encode",
    "to_stereo",
]
