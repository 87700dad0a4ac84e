"""How loud a sound is over time, in memory that does not grow with its samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayreel.media.container import open_media, sound_stream
from rayreel.media.pieces import sound_pieces

STRETCHES_PER_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Loudness:
    """What is known of a sound without its samples.

    Attributes:
        levels: Float32 ``(stretches,)``: root mean square over all channels of each twentieth of a
            second; full scale is 1.
        duration_s: Of the sound.
        channels: Of the sound.
    """

    levels: NDArray[np.float32]
    duration_s: float
    channels: int


def read_loudness(source: str | Path) -> Loudness | None:
    """Measure the first sound of a file.

    Args:
        source: A media file: a local path, or a URI that fsspec opens.

    Returns:
        ``None`` for a file without sound, or whose sound has no samples.

    Raises:
        MediaError: If the file cannot be read.
    """
    sums = np.zeros(0)
    counts = np.zeros(0)
    position = 0
    with open_media(source) as container:
        stream = sound_stream(container)
        if stream is None:
            return None
        rate, channels = stream.sample_rate, stream.channels
        for piece in sound_pieces(container, stream):
            if not piece.shape[1]:
                continue
            power = np.square(piece, dtype=np.float64).mean(axis=0)
            stretch = np.arange(position, position + len(power)) * STRETCHES_PER_S // rate
            position += len(power)
            first = int(stretch[0])
            room = int(stretch[-1]) + 1
            if room > len(sums):
                # In larger steps, as growing means copying.
                grown = max(room, 2 * len(sums))
                sums = np.pad(sums, (0, grown - len(sums)))
                counts = np.pad(counts, (0, grown - len(counts)))
            sums[first:room] += np.bincount(stretch - first, power)
            counts[first:room] += np.bincount(stretch - first)
    if position == 0:
        return None
    used = counts > 0
    levels = np.sqrt(sums[used] / counts[used]).astype(np.float32)
    return Loudness(levels=levels, duration_s=position / rate, channels=channels)
