"""The sound of a file as a waveform."""

from pathlib import Path

import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import InputContainer

from rayreel.errors import MediaError
from rayreel.media.container import open_media, sound_stream
from rayreel.media.pieces import sound_pieces
from rayreel.types import Audio


def read_audio(
    source: str | Path, *, start_s: float = 0.0, max_duration_s: float | None = None
) -> Audio | None:
    """Read the first audio stream, at its own rate and with its own channels.

    Args:
        source: A media file, with or without video: a local path, or a URI that fsspec opens.
        start_s: Where to start, in the file's time and exact to the sample.
        max_duration_s: Longest duration to return; ``None`` for all that follows.

    Returns:
        Float32 waveform, empty if the sound ends before ``start_s``; ``None`` for a silent file.

    Raises:
        MediaError: If the file cannot be read.
    """
    with open_media(source) as container:
        stream = sound_stream(container)
        return None if stream is None else _cut(container, stream, start_s, max_duration_s)[0]


def read_soundtrack(source: str | Path, *, start_s: float, duration_s: float) -> Audio:
    """Read a part of a sound that has to be there.

    Args:
        source: A media file, with or without video: a local path, or a URI that fsspec opens.
        start_s: Where to start, in the file's time and exact to the sample.
        duration_s: Duration to return, at least one sample; less where the sound ends sooner.

    Returns:
        Float32 waveform with at least one sample, at the file's own rate and with its own channels.

    Raises:
        MediaError: If the file cannot be read, has no sound, or its sound ends before ``start_s``.
        ValueError: If ``start_s`` is negative or ``duration_s`` not positive.
    """
    if not (start_s >= 0 and duration_s > 0):
        raise ValueError(
            f"start_s={start_s}, duration_s={duration_s}: expected a start of at least 0 and a "
            "duration of more than 0 seconds"
        )
    with open_media(source) as container:
        stream = sound_stream(container)
        if stream is None:
            raise MediaError(f"{source} has no sound")
        audio, end_s = _cut(container, stream, start_s, max(duration_s, 1 / stream.sample_rate))
    if audio.waveform.shape[1] == 0:
        raise MediaError(
            f"the sound of {source} ends at {end_s:.6g} s; expected a start before that, not at "
            f"{start_s:.6g} s"
        )
    return audio


def _cut(
    container: InputContainer, stream: AudioStream, start_s: float, max_duration_s: float | None
) -> tuple[Audio, float]:
    """A part of the sound, and the time up to which it was read."""
    rate = stream.sample_rate
    start = round(start_s * rate)
    stop = None if max_duration_s is None else start + round(max_duration_s * rate)
    kept = [np.zeros((stream.channels, 0), np.float32)]
    position = 0
    for samples in sound_pieces(container, stream):
        end = position + samples.shape[1]
        # An empty part would keep the whole piece in memory.
        if end > start:
            kept.append(samples[:, max(start - position, 0) :])
        position = end
        if stop is not None and position >= stop:
            break
    waveform = np.concatenate(kept, axis=1)[:, : None if stop is None else stop - start]
    audio = Audio(waveform=torch.from_numpy(waveform), sample_rate_hz=rate)
    return audio, position / rate
