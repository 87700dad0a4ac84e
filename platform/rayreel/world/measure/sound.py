"""What is heard in a sound: its tones and its clicks."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, stft
from torch import Tensor

from rayreel.world.palette import PITCH_HZ
from rayreel.world.scene import Colour

Array = NDArray[np.float64]

_SEARCHED_HZ = (200.0, 1700.0)
# A tone's own width: it is panned, grows louder, and comes out of a vocoder.
_WIDTH, _LEAST_WIDTH_HZ = 0.02, 6.0
# A second tone is at least so loud beside the loudest.
_LEAST_SHARE = 0.2
_SILENCE = 0.005
# Tones of the palette are at least 6 % from overtones of all others.
_OVERTONE_WIDTH = 0.035
_MOST_TONES = 3

_CLICK_BAND_HZ = (2150.0, 6500.0)
_CLICK_WINDOW_S, _CLICK_HOP_S = 0.010, 0.001
_LEAST_CLICK = 0.012
_CLICK_OVER_WAVER = 6.0
_BETWEEN_CLICKS_S = 0.03
# A click is loudest, as its window sees it, so much after its start.
_CLICK_DELAY_S = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """A tone.

    Attributes:
        hertz: Its frequency.
        colour: The colour whose tone is nearest.
        loudness: Amplitude of its fundamental, both sides together.
        pan: Where it comes from on average: 0 left, 1 right.
    """

    hertz: float
    colour: Colour
    loudness: float
    pan: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is heard in a clip.

    Attributes:
        tones: The loudest first; empty in silence.
        clicks_s: When there are clicks, in seconds.
    """

    tones: tuple[Tone, ...]
    clicks_s: tuple[float, ...]


def measure_sound(samples: Tensor, rate: int) -> Heard:
    """What samples sound like.

    Args:
        samples: Float stereo ``(2, N)``.
        rate: Samples per second.

    Raises:
        ValueError: If they are not stereo, or there are none.
    """
    if samples.dim() != 2 or samples.shape[0] != 2 or not samples.numel():
        raise ValueError(f"expected samples (2, N), not {tuple(samples.shape)}")
    wave = samples.detach().cpu().numpy().astype(np.float64)
    return Heard(tones=tuple(_tones(wave, rate)), clicks_s=tuple(_clicks(wave, rate)))


def _tones(wave: Array, rate: int) -> list[Tone]:
    window = np.hanning(wave.shape[1])
    # In squares of the amplitudes of sines, by Parseval's theorem.
    power = (
        np.square(np.abs(np.fft.rfft(wave * window)))
        * 4
        / (wave.shape[1] * np.square(window).sum())
    )
    hertz = np.fft.rfftfreq(wave.shape[1], 1 / rate)
    left = power.sum(0) * ((hertz > _SEARCHED_HZ[0]) & (hertz < _SEARCHED_HZ[1]))
    found: list[Tone] = []
    while len(found) < _MOST_TONES:
        peak = float(hertz[left.argmax()])
        own = np.abs(hertz - peak) < max(_WIDTH * peak, _LEAST_WIDTH_HZ)
        sides = np.sqrt(power[:, own].sum(1))
        loudness = float(np.hypot(*sides))
        if loudness < max(_SILENCE, _LEAST_SHARE * found[0].loudness if found else 0.0):
            break
        colour = min(PITCH_HZ, key=lambda name: abs(math.log(peak / PITCH_HZ[name])))
        pan = math.atan2(sides[1], sides[0]) / (math.pi / 2)
        found.append(Tone(hertz=peak, colour=colour, loudness=loudness, pan=pan))
        # All between it and its neighbours in the palette is its own, and so are its overtones.
        left[np.abs(np.log2(np.maximum(hertz, 1) / peak)) < 2 / 12] = 0
        for overtone in (2, 3, 4):
            left[np.abs(hertz / (overtone * peak) - 1) < _OVERTONE_WIDTH] = 0
    return found


def _clicks(wave: Array, rate: int) -> list[float]:
    size, hop = round(_CLICK_WINDOW_S * rate), max(1, round(_CLICK_HOP_S * rate))
    if wave.shape[1] < 2 * size:
        return []
    hertz, times, bins = stft(wave, rate, nperseg=size, noverlap=size - hop)
    band = (hertz >= _CLICK_BAND_HZ[0]) & (hertz <= _CLICK_BAND_HZ[1])
    loudness = np.sqrt(np.square(np.abs(bins[:, band])).sum((0, 1)))
    # Hiss is there all the time, and wavers.
    usual = float(np.median(loudness))
    least = usual + max(_LEAST_CLICK, _CLICK_OVER_WAVER * float(np.median(abs(loudness - usual))))
    peaks, _ = find_peaks(
        loudness,
        height=least,
        prominence=(least - usual) / 2,
        distance=round(_BETWEEN_CLICKS_S * rate / hop),
    )
    return [max(0.0, float(times[peak]) - _CLICK_DELAY_S) for peak in peaks]
