"""What can be measured of a scene, by the names that filters use.

A measure is a function of an :class:`Excerpt` with a line in :data:`MEASURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayreel.media.footage import Footage
from rayreel.media.loudness import STRETCHES_PER_S

DARK = 25
"""Brightness, of 255, up to which a pixel counts as black."""

BLACK_SHARE = 0.98
"""Share of dark pixels that makes a frame black; both as in ffmpeg's filter blackdetect."""

FROZEN_LEVELS = 1
"""Levels of 255 that a part of a picture which stands still may differ in: noise of a codec."""

SILENT_LEVEL = 1e-3
"""Root mean square below which sound is silence: -60 dB."""

HASHED_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A scene of a file, as a measure sees it.

    Attributes:
        footage: The file.
        start: First frame.
        num_frames: 0 for sound alone.
    """

    footage: Footage
    start: int = 0
    num_frames: int

    @property
    def duration_s(self) -> float:
        """Of the scene; of all the sound if there is no picture."""
        footage = self.footage
        return self.num_frames / footage.fps if footage.fps else footage.duration_s

    @property
    def thumbs(self) -> NDArray[np.uint8]:
        """Small pictures of the frames, ``(F, 32, 32)``."""
        return self.footage.thumbs[self.start : self.start + self.num_frames]

    @property
    def loudness(self) -> NDArray[np.float32]:
        """Of each twentieth of a second; 0 where there is no sound."""
        start_s = self.start / self.footage.fps if self.footage.fps else 0.0
        first = round(start_s * STRETCHES_PER_S)
        count = max(1, round(self.duration_s * STRETCHES_PER_S))
        levels = np.zeros(count, np.float32)
        if self.footage.loudness is not None:
            found = self.footage.loudness[first : first + count]
            levels[: len(found)] = found
        return levels


def excerpts(footage: Footage, max_scenes: int | None = None) -> list[Excerpt]:
    """The scenes of a file, in their order.

    Args:
        footage: The file.
        max_scenes: The first ones only.
    """
    ends = [*footage.cuts, footage.num_frames]
    scenes = [
        Excerpt(footage=footage, start=start, num_frames=end - start)
        for start, end in pairwise(ends)
    ]
    return scenes[:max_scenes]


def black(excerpt: Excerpt) -> float:
    """Share of black frames."""
    dark = (excerpt.thumbs <= DARK).mean(axis=(1, 2))
    return _share(dark >= BLACK_SHARE)


def frozen(excerpt: Excerpt) -> float:
    """Share of frames that look like the one before.

    They are compared with the last one that did not: slow motion adds up until it shows.
    """
    thumbs = excerpt.thumbs.astype(np.int16)
    stands = np.zeros(max(0, len(thumbs) - 1), np.bool_)
    shown = thumbs[:1]
    for index, thumb in enumerate(thumbs[1:]):
        stands[index] = np.abs(thumb - shown).max() <= FROZEN_LEVELS
        if not stands[index]:
            shown = thumb
    return _share(stands)


def silence(excerpt: Excerpt) -> float:
    """Share of the time that is silent; 1 without sound."""
    return _share(excerpt.loudness < SILENT_LEVEL)


def audio_mismatch_s(excerpt: Excerpt) -> float:
    """Seconds that picture and sound of the file differ in length; 0 if it lacks one of them."""
    footage = excerpt.footage
    if footage.kind != "video" or footage.sound_s is None:
        return 0.0
    return abs(footage.sound_s - footage.duration_s)


MEASURES: dict[str, Callable[[Excerpt], float]] = {
    "duration_s": lambda excerpt: excerpt.duration_s,
    "fps": lambda excerpt: excerpt.footage.fps,
    "width": lambda excerpt: float(excerpt.footage.width),
    "height": lambda excerpt: float(excerpt.footage.height),
    "num_frames": lambda excerpt: float(excerpt.num_frames),
    "black": black,
    "frozen": frozen,
    "silence": silence,
    "has_audio": lambda excerpt: float(excerpt.footage.sound_s is not None),
    "audio_mismatch_s": audio_mismatch_s,
}
"""Measures by name."""


def measured(excerpt: Excerpt) -> dict[str, float]:
    """All measures of a scene, by name."""
    return {name: measure(excerpt) for name, measure in MEASURES.items()}


def perceptual_hash(thumbs: NDArray[np.uint8]) -> str:
    """What a scene looks like, in 256 bits: those that look alike differ in few of them.

    Args:
        thumbs: Brightness of its frames, ``(F, 32, 32)``.

    Returns:
        64 hexadecimal digits, 16 for each of four frames at even distances; empty without frames.
    """
    if not len(thumbs):
        return ""
    taken = [len(thumbs) * (2 * part + 1) // (2 * HASHED_FRAMES) for part in range(HASHED_FRAMES)]
    return "".join(str(imagehash.phash(Image.fromarray(thumbs[index]))) for index in taken)


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0
