"""How far sounds are apart, whatever the phases of what they consist of.

Letters: B batch, S stereo channels, N samples.
"""

import torch
from torch import Tensor

# From what tells apart when a click is to what tells apart how high a tone is.
_WINDOWS = (128, 512, 2048)
# Amplitude, of a sine, below which differences count less and less.
_QUIET = 3e-4


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


def _levels(waveform: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size)
    spectrum = torch.stft(
        waveform.flatten(0, 1), size, hop_length=size // 4, window=window, return_complex=True
    )
    # A sine reads as its amplitude. The square root is steep at 0, where silence is.
    power = spectrum.real.square() + spectrum.imag.square()
    amplitude = (power + 1e-12).sqrt() * 2 / window.sum()
    return (amplitude + _QUIET).log()
