"""The sound of a file as a waveform."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from rayreel.media.container import open_media
from rayreel.types import Audio


def read_audio(
    path: Path, *, start_s: float = 0.0, max_duration_s: float | None = None
) -> Audio | None:
    """Read the first audio stream, at its own rate and with its own channels.

    Args:
        path: A media file.
        start_s: Where to start, in the file's time and exact to the sample.
        max_duration_s: Longest duration to return; ``None`` for all that follows.

    Returns:
        Float32 waveform, empty if the sound ends before ``start_s``; ``None`` for a silent file.

    Raises:
        MediaError: If the file cannot be read.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        rate = stream.sample_rate
        start = round(start_s * rate)
        stop = None if max_duration_s is None else start + round(max_duration_s * rate)
        kept = [np.zeros((stream.channels, 0), np.float32)]
        position = 0
        for samples in _samples(container, stream):
            kept.append(samples[:, max(start - position, 0) :])
            position += samples.shape[1]
            if stop is not None and position >= stop:
                break
    waveform = np.concatenate(kept, axis=1)[:, : None if stop is None else stop - start]
    return Audio(waveform=torch.from_numpy(waveform), sample_rate_hz=rate)


def _samples(container: InputContainer, stream: AudioStream) -> Iterator[NDArray[np.float32]]:
    """Pieces ``(channels, samples)`` of the sound, silence first where it starts after the file."""
    time_base = stream.time_base or 0
    late_s = (stream.start_time or 0) * time_base - (container.start_time or 0) / av.time_base
    yield np.zeros((stream.channels, max(round(late_s * stream.sample_rate), 0)), np.float32)
    # Changes the sample format only: integers to [-1, 1], one row per channel.
    to_float = av.AudioResampler(format="fltp")
    left = None
    if "mp4" in container.format.name and stream.duration:
        # AAC comes in blocks of 1024 samples; where it really ends stands in the header. Other
        # containers only estimate their length, and other codecs need no such cut.
        left = round(stream.duration * time_base * stream.sample_rate)
    for frame in container.decode(stream):
        for part in to_float.resample(frame):
            samples = part.to_ndarray()[:, :left].astype(np.float32, copy=False)
            left = None if left is None else left - samples.shape[1]
            yield samples
