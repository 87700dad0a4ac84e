"""From a recorded waveform to the latent that the transformer generates.

Letters: B batch, C channels, N samples.
"""

import torch
from torch import Tensor

from rayreel.models.audio_vae.encoder import AudioEncoder
from rayreel.models.audio_vae.mel import log_mel
from rayreel.models.audio_vae.resample import resample
from rayreel.models.audio_vae.tiled import encode_mel

# Weights of the left and of the right output over the input channels, in the usual order: front
# left and right, centre, low frequencies (dropped), then left and right of side and back.
_SURROUND = {
    6: ((1, 0, 0.707, 0, 0.707, 0), (0, 1, 0.707, 0, 0, 0.707)),
    8: ((1, 0, 0.707, 0, 0.707, 0, 0.707, 0), (0, 1, 0.707, 0, 0, 0.707, 0, 0.707)),
}


def to_stereo(waveform: Tensor) -> Tensor:
    """Mix any number of channels to two.

    Mono is duplicated, 5.1 and 7.1 are weighted so that full scale stays full scale, and any other
    layout becomes its mean on both sides.

    Args:
        waveform: ``(..., C, N)``.

    Returns:
        ``(..., 2, N)`` in the same dtype.
    """
    channels = waveform.shape[-2]
    if channels == 2:
        return waveform
    if channels not in _SURROUND:
        mono = waveform.mean(dim=-2, keepdim=True)
        return torch.cat([mono, mono], dim=-2)
    weights = waveform.new_tensor(_SURROUND[channels])
    return (weights / weights.sum(dim=1, keepdim=True)) @ waveform


def encode_waveform(encoder: AudioEncoder, waveform: Tensor, sample_rate_hz: int) -> Tensor:
    """Encode sound to a latent, long sound in tiles: their result is that of the whole.

    Resampling and the mel spectrogram keep the waveform's dtype; the network runs in its own.

    Args:
        encoder: Its config says which rate and which mel spectrogram it takes.
        waveform: Stereo ``(B, 2, N)`` in [-1, 1].
        sample_rate_hz: Rate of ``waveform``.

    Returns:
        Normalised latent ``(B, C, frames, bins)`` in the encoder's dtype.

    Raises:
        ValueError: If the waveform is too short for one mel frame.
    """
    config = encoder.config
    mel = log_mel(resample(waveform, sample_rate_hz, config.sample_rate_hz), config)
    return encode_mel(encoder, mel.to(encoder.dtype))
