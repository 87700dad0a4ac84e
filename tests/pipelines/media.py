"""Clips, sounds and masks to encode, written on the spot."""

from pathlib import Path
from typing import Any

import numpy as np

from rayreel.config.buckets import Bucket
from rayreel.data.samples import Picture, Sound
from tests.media.samples import grey_levels, write_video, write_wav


def grey_clip(path: Path, *, num_frames: int = 9, height: int = 64, width: int = 96) -> Path:
    """A lossless clip at 24 frames per second whose frames get brighter one by one."""
    write_video(path, grey_levels(num_frames, height, width))
    return path


def tone(path: Path, *, seconds: float = 1.0, rate: int = 16000, channels: int = 2) -> Path:
    """A WAV with a tone of 440 Hz, quieter from channel to channel."""
    wave = np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    loudness = 0.5 ** np.arange(1, channels + 1)
    write_wav(path, (32767 * wave[:, None] * loudness).astype(np.int16), rate)
    return path


def picture(path: Path, *, bucket: str = "96x64x9", **fields: Any) -> Picture:
    """All of a clip that fits its bucket."""
    values = {"content": path.stem, "fps": 24.0, "crop": (0, 0), **fields}
    return Picture(source=str(path), bucket=Bucket.model_validate(bucket), **values)


def sound(path: Path, *, duration_s: float = 1.0, **fields: Any) -> Sound:
    """The beginning of a sound."""
    return Sound(source=str(path), content=path.stem, duration_s=duration_s, **fields)
