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
        reach = TAPS // (2 * RATIO)
        padded = _padded(x_BCN, reach, reach)
        # The gain that makes up for the zeros costs nothing on the filter.
        kernel = (RATIO * self.filter).expand(channels, 1, TAPS)
        return F.conv_transpose1d(padded, kernel, stride=RATIO, padding=TAPS - 1, groups=channels)


class Downsample(nn.Module):
    """Halves the rate: the filter, then every second sample."""

    BEFORE, AFTER = TAPS // 2 - 1, TAPS // 2

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPass()

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to ``(B, C, ceil(N / 2))``."""
        return self.filtered(_padded(x_BCN, self.BEFORE, self.AFTER))

    def filtered(self, padded_BCN: Tensor) -> Tensor:
        """Result for an input whose ends are repeated ``BEFORE`` and ``AFTER`` times already."""
        channels = padded_BCN.shape[1]
        kernel = self.lowpass.filter.expand(channels, 1, TAPS)
        return F.conv1d(padded_BCN, kernel, stride=RATIO, groups=channels)


def _is_small(x: Tensor) -> bool:
    """Whether PyTorch's padding, as slow as a filter, costs less than a few more calls."""
    return x.numel() < 2**13


def _padded(x: Tensor, before: int, after: int) -> Tensor:
    if _is_small(x):
        return F.pad(x, (before, after), mode="replicate")
    padded, inner = _room(x, before, after)
    inner.copy_(x)
    _repeat_ends(padded, before, after)
    return padded


def _room(x: Tensor, before: int, after: int) -> tuple[Tensor, Tensor]:
    """Uninitialised memory for an input with its borders, and the part that is the input's."""
    padded = x.new_empty(*x.shape[:2], before + x.shape[2] + after)
    return padded, padded[..., before : before + x.shape[2]]


def _repeat_ends(padded: Tensor, before: int, after: int) -> None:
    padded[..., :before] = padded[..., before : before + 1]
    padded[..., -after:] = padded[..., -after - 1 : -after]


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

    def forward(self, x_BCN: Tensor, out: Tensor | None = None) -> Tensor:
        """``(B, C, N)`` to the same shape, written to ``out`` where it is given."""
        frequency, magnitude = self.alpha.exp().unsqueeze(1), self.beta.exp().unsqueeze(1)
        wave = (frequency * x_BCN).sin_().square_()
        return torch.addcmul(x_BCN, wave, 1 / (magnitude + 1e-9), out=out)


class AntiAliasedSnake(nn.Module):
    """SnakeBeta at twice the rate, where the harmonics that it makes can still be filtered out."""

    def __init__(self, channels: int) -> None:
        """Args: channels: C."""
        super().__init__()
        self.upsample = Upsample()
        self.act = SnakeBeta(channels)
        self.downsample = Downsample()

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to the same shape; without gradients, as it writes in place."""
        doubled = self.upsample(x_BCN)
        if _is_small(doubled):
            return self.downsample(self.act(doubled))
        before, after = Downsample.BEFORE, Downsample.AFTER
        padded, inner = _room(doubled, before, after)
        self.act(doubled, out=inner)
        _repeat_ends(padded, before, after)
        return self.downsample.filtered(padded)
