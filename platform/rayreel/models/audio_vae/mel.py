"""Mel front end of the audio VAE.

Letters: C channels, N samples, T mel frames, M mel bins.
"""

import math

import torch
from torch import Tensor

from rayreel.config.model import AudioVAEConfig

LOG_FLOOR = 1e-5


def log_mel(waveform: Tensor, config: AudioVAEConfig) -> Tensor:
    """Natural logarithm of the mel magnitude spectrogram, in the dtype of the waveform.

    Frames are centred on their time although the files call the transform causal.

    Args:
        waveform: ``(..., C, N)`` in [-1, 1], at ``config.sample_rate_hz``.
        config: Sizes of the transform and of the filterbank.

    Returns:
        ``(..., C, T, M)`` with ``T = 1 + N // hop_length``.

    Raises:
        ValueError: If the waveform is too short to be reflected at its ends.
    """
    stft, mel = config.preprocessing.stft, config.preprocessing.mel
    samples = waveform.shape[-1]
    if samples <= stft.filter_length // 2:
        raise ValueError(
            f"a waveform of {samples} samples is too short for the mel spectrogram; "
            f"expected more than {stft.filter_length // 2}"
        )
    spectrum = torch.stft(
        waveform.reshape(-1, samples),
        stft.filter_length,
        hop_length=stft.hop_length,
        win_length=stft.win_length,
        window=torch.hann_window(stft.win_length, dtype=waveform.dtype, device=waveform.device),
        return_complex=True,
    )
    filterbank = mel_filterbank(
        bins=config.mel_bins,
        frequencies=spectrum.shape[-2],
        sample_rate_hz=config.sample_rate_hz,
        min_hz=mel.mel_fmin,
        max_hz=mel.mel_fmax,
    )
    energies = spectrum.abs().transpose(-1, -2) @ filterbank.to(waveform)
    log_energies = energies.clamp(min=LOG_FLOOR).log()
    return log_energies.reshape(*waveform.shape[:-1], *log_energies.shape[1:])


def mel_filterbank(
    *, bins: int, frequencies: int, sample_rate_hz: int, min_hz: float, max_hz: float
) -> Tensor:
    """Triangular filters, equally spaced and of equal area on Slaney's mel scale.

    Args:
        bins: M.
        frequencies: Points of the one-sided spectrum, from 0 to half the sampling rate.
        sample_rate_hz: Rate of the waveform.
        min_hz: Where the first triangle starts.
        max_hz: Where the last triangle ends.

    Returns:
        Float64 ``(frequencies, M)``.

    Reference:
        Slaney 1998, "Auditory Toolbox", Interval Research technical report 1998-010.
    """
    mels = torch.linspace(_hz_to_mel(min_hz), _hz_to_mel(max_hz), bins + 2, dtype=torch.float64)
    corners = _mel_to_hz(mels)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    hz = torch.linspace(0, sample_rate_hz / 2, frequencies, dtype=torch.float64)[:, None]
    rising, falling = (hz - low) / (centre - low), (high - hz) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)


# Slaney's scale is linear up to 1 kHz, at 15 mel, and from there takes 27 mel for a factor of 6.4.
_KNEE_HZ, _KNEE_MEL, _MEL_PER_E_FOLD = 1000.0, 15.0, 27 / math.log(6.4)


def _hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz * _KNEE_MEL / _KNEE_HZ
    return _KNEE_MEL + _MEL_PER_E_FOLD * math.log(hz / _KNEE_HZ)


def _mel_to_hz(mel: Tensor) -> Tensor:
    linear = mel * _KNEE_HZ / _KNEE_MEL
    logarithmic = _KNEE_HZ * torch.exp((mel - _KNEE_MEL) / _MEL_PER_E_FOLD)
    return torch.where(mel < _KNEE_MEL, linear, logarithmic)
