"""Periodic activation with its aliases filtered out.

Letters: B batch, C channels, N samples.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATIO = 2
TAPS = 12


def kaiser_sinc(cutoff: float, half_width: float, taps: int) -> Tensor:
    """Low-pass filter: a sinc under a Kaiser window, with unit gain at zero frequency.

    Args:
        cutoff: As a part of the sampling rate, in (0, 0.5].
        half_width: Half of the transition band, as a part of the sampling rate.
        taps: Length of the filter, even.

    Returns:
        Float64 ``(taps,)``, symmetric.

    Reference:
        Kaiser and Schafer 1980, "On the use of the I0-sinh window for spectrum analysis".
    """
    half = taps // 2
    attenuation_db = 2.285 * (half - 1) * math.pi * 4 * half_width + 7.95
    if attenuation_db > 50:
        beta = 0.1102 * (attenuation_db - 8.7)
    elif attenuation_db >= 21:
        beta = 0.5842 * (attenuation_db - 21) ** 0.4 + 0.07886 * (attenuation_db - 21)
    else:
        beta = 0.0
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    t = torch.arange(-half, half, dtype=torch.float64) + 0.5
    kernel = window * torch.sinc(2 * cutoff * t)
    return kernel / kernel.sum()


class LowPass(nn.Module):
    """Holds a stored low-pass filter for a change of rate by two."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernel = kaiser_sinc(0.5 / RATIO, 0.6 / RATIO, TAPS)
        self.register_buffer("filter", kernel.to(torch.get_default_dtype()).reshape(1, 1, TAPS))


class Upsample(LowPass):
    """Doubles the rate: zeros between the samples, then the filter."""

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to ``(B, C, 2N)``."""
        channels = x_BCN.shape[1]
        pad = TAPS // RATIO - 1
        padded = F.pad(x_BCN, (pad, pad), mode="replicate")
        kernel = self.filter.expand(channels, 1, TAPS)
        y = RATIO * F.conv_transpose1d(padded, kernel, stride=RATIO, groups=channels)
        crop = pad * RATIO + (TAPS - RATIO) // 2
        return y[..., crop:-crop]


class Downsample(nn.Module):
    """Halves the rate: the filter, then every second sample."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPass()

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to ``(B, C, ceil(N / 2))``."""
        channels = x_BCN.shape[1]
        padded = F.pad(x_BCN, (TAPS // 2 - 1, TAPS // 2), mode="replicate")
        kernel = self.lowpass.filter.expand(channels, 1, TAPS)
        return F.conv1d(padded, kernel, stride=RATIO, groups=channels)


class SnakeBeta(nn.Module):
    """``x + sin(a x)^2 / b`` with a frequency and a magnitude per channel, stored as logarithms.

    Reference:
        Ziyin et al. 2020, arXiv:2006.08195; separate magnitudes after Lee et al. 2022,
        arXiv:2206.04658.
    """

    def __init__(self, channels: int) -> None:
        """Args: channels: C."""
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to the same shape."""
        frequency, magnitude = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x_BCN + torch.sin(frequency * x_BCN).square() / (magnitude + 1e-9)


class AntiAliasedSnake(nn.Module):
    """SnakeBeta at twice the rate, where the harmonics that it makes can still be filtered out."""

    def __init__(self, channels: int) -> None:
        """Args: channels: C."""
        super().__init__()
        self.upsample = Upsample()
        self.act = SnakeBeta(channels)
        self.downsample = Downsample()

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to the same shape."""
        return self.downsample(self.act(self.upsample(x_BCN)))
