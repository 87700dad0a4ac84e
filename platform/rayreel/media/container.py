"""Opening media files, and what a file says about itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from rayreel.errors import MediaError


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What a video file holds.

    Attributes:
        width: Pixels.
        height: Pixels.
        num_frames: Video frames.
        fps: Frames per second.
        duration_s: Length of the video track.
        sample_rate_hz: Rate of the sound; ``None`` for a silent file.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float
    sample_rate_hz: int | None

    @property
    def has_audio(self) -> bool:
        """Whether the file has sound."""
        return self.sample_rate_hz is not None


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Raises:
        MediaError: If the file is missing or cut off, or turns out damaged while it is read.
    """
    try:
        with av.open(str(path)) as container:
            # ffmpeg plays what is left of a cut-off file without a word.
            entries = (entry for stream in container.streams for entry in stream.index_entries)
            end = max((entry.pos + entry.size for entry in entries), default=0)
            if end > path.stat().st_size:
                raise MediaError(
                    f"{path} is cut off: its index reaches to byte {end}, "
                    f"the file has {path.stat().st_size}"
                )
            yield container
    except av.FFmpegError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error


def video_stream(container: InputContainer, path: Path) -> tuple[VideoStream, Fraction]:
    """The first video stream and its frame rate.

    Raises:
        MediaError: If there is none, or it has no frame rate.
    """
    if not container.streams.video:
        raise MediaError(f"{path} has no video stream")
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise MediaError(f"the video of {path} has no frame rate")
    return stream, rate


def probe(path: Path) -> MediaInfo:
    """Size, length and rates of a video file, without decoding it.

    Raises:
        MediaError: If the file cannot be read or has no video.
    """
    with open_media(path) as container:
        stream, rate = video_stream(container, path)
        audio = container.streams.audio
        # Matroska files do not store the count.
        num_frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        exact = stream.duration and stream.time_base and stream.duration * stream.time_base
        return MediaInfo(
            width=stream.width,
            height=stream.height,
            num_frames=num_frames,
            fps=float(rate),
            duration_s=float(exact or num_frames / rate),
            sample_rate_hz=audio[0].sample_rate if audio else None,
        )
