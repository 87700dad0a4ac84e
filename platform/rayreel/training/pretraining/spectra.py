"""How far sounds are apart, whatever the phases of what they consist of.

Letters: B batch, S stereo channels, N samples.
"""

import torch
from einops import rearrange
from torch import Tensor

# From what tells apart when a click is to what tells apart how high a tone is.
_WINDOWS = (128, 512, 2048)
# Amplitude, of a sine, below which differences count less and less.
_QUIET = 3e-4
# Clicks are above all tones, and short.
_CLICKS_HZ, _CLICK_WINDOWS = 2100, (128, 512)
# Mean amplitude of their band where nothing clicks.
_NO_CLICKS = 2e-5


def spectral_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance of log-magnitude spectrograms, over windows of several lengths.

    Args:
        made: Waveforms ``(B, 2, N)``.
        wanted: Waveforms of the same shape.

    Returns:
        A scalar, in natural logarithms of an amplitude.

    Reference:
        Yamamoto et al. 2020, arXiv:1910.11480 (multi-resolution STFT loss).
    """
    distances = [
        (_levels(made, window) - _levels(wanted, window)).abs().mean() for window in _WINDOWS
    ]
    return torch.stack(distances).mean()


def click_distance(made: Tensor, wanted: Tensor, rate_hz: int) -> Tensor:
    """Mean distance of magnitude spectrograms where clicks are, as a share of what clicks there.

    A few hundredths of a second among seconds of silence hardly count in a mean over all.

    Args:
        made: Waveforms ``(B, 2, N)``.
        wanted: Waveforms of the same shape.
        rate_hz: Their samples per second.

    Returns:
        A scalar; 1 for silence instead of clicks.
    """
    distances = []
    for window in _CLICK_WINDOWS:
        first = round(_CLICKS_HZ * window / rate_hz)
        heard, right = (
            rearrange(_amplitudes(waveform, window)[:, first:], "(b s) k t -> b (s k t)", s=2)
            for waveform in (made, wanted)
        )
        wrong = (heard - right).abs().mean(1)
        distances.append((wrong / (right.mean(1) + _NO_CLICKS)).mean())
    return torch.stack(distances).mean()


def _levels(waveform: Tensor, size: int) -> Tensor:
    return (_amplitudes(waveform, size) + _QUIET).log()


def _amplitudes(waveform: Tensor, size: int) -> Tensor:
    """Magnitudes ``(B * 2, bins, frames)``; a sine reads as its amplitude."""
    window = torch.hann_window(size)
    spectrum = torch.stft(
        waveform.flatten(0, 1), size, hop_length=size // 4, window=window, return_complex=True
    )
    # The square root is steep at 0, where silence is.
    power = spectrum.real.square() + spectrum.imag.square()
    return (power + 1e-12).sqrt() * 2 / window.sum()
