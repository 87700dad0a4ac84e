"""Sound of a file as it is decoded, piece by piece; needs no torch."""

from collections.abc import Iterator

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray


def sound_pieces(container: InputContainer, stream: AudioStream) -> Iterator[NDArray[np.float32]]:
    """Pieces ``(channels, samples)`` of a sound, silence first where it starts after the file."""
    time_base = stream.time_base or 0
    late_s = sound_starts_at(container, stream)
    yield np.zeros((stream.channels, max(round(late_s * stream.sample_rate), 0)), np.float32)
    # Changes the sample format only: integers to [-1, 1]. The channels of a sample lie together: of
    # eight that lie apart, PyAV reads a ninth.
    to_float = av.AudioResampler(format="flt")
    left = None
    if "mp4" in container.format.name and stream.duration:
        # AAC comes in blocks of 1024 samples; where it really ends stands in the header. Other
        # containers only estimate their length, and other codecs need no such cut.
        left = round(stream.duration * time_base * stream.sample_rate)
    for frame in container.decode(stream):
        for part in to_float.resample(frame):
            packed = part.to_ndarray().astype(np.float32, copy=False)
            samples = packed.reshape(-1, stream.channels).T[:, :left]
            left = None if left is None else left - samples.shape[1]
            yield samples


def sound_starts_at(container: InputContainer, stream: AudioStream) -> float:
    """Seconds from the start of a file to that of its sound; negative where that comes before."""
    late_s = (stream.start_time or 0) * (stream.time_base or 0)
    return float(late_s - (container.start_time or 0) / av.time_base)
