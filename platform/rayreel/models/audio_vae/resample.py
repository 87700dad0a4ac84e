"""Change of sampling rate with a windowed sinc.

Letters: C channels, N samples.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Zero crossings on either side of the kernel's centre; the cutoff as a part of the Nyquist rate.
ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def resample(
    waveform: Tensor,
    old_rate_hz: int,
    new_rate_hz: int,
    *,
    edges: Literal["constant", "replicate"] = "constant",
) -> Tensor:
    """Resample with a Hann-windowed sinc low-pass filter, in the dtype of the waveform.

    Args:
        waveform: ``(..., C, N)``.
        old_rate_hz: Rate of ``waveform``.
        new_rate_hz: Rate of the result.
        edges: What the waveform is taken to be beyond its ends: zero, or its last sample.

    Returns:
        ``(..., C, ceil(N * new / old))``; ``waveform`` itself where the rates are equal.

    Reference:
        Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample; the constants
        are torchaudio's defaults.
    """
    if old_rate_hz == new_rate_hz:
        return waveform
    common = math.gcd(old_rate_hz, new_rate_hz)
    old, new = old_rate_hz // common, new_rate_hz // common
    kernels, width = _kernels(old, new)
    signal = waveform.reshape(-1, 1, waveform.shape[-1])
    padded = F.pad(signal, (width, width + old), mode=edges)
    phases = F.conv1d(padded, kernels.to(waveform), stride=old)
    samples = -(-new * waveform.shape[-1] // old)
    return phases.transpose(1, 2).flatten(1)[:, :samples].reshape(*waveform.shape[:-1], samples)


def _kernels(old: int, new: int) -> tuple[Tensor, int]:
    """One filter per output phase, float64 ``(new, 1, old + 2 * width)``, and ``width``."""
    cutoff = ROLLOFF * min(old, new)
    width = math.ceil(ZERO_CROSSINGS * old / cutoff)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = torch.arange(new, dtype=torch.float64)[:, None] / new
    t = ((taps - phases) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(math.pi * t / (2 * ZERO_CROSSINGS)).square()
    return (torch.sinc(t) * window * cutoff / old)[:, None], width
