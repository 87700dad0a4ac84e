"""When the frames of a video are shown, and how they become frames at a constant rate."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rayreel.errors import MediaError
from rayreel.media.container import open_media, video_stream

ROUNDING_S = Fraction(1, 1000)
"""Times of Matroska, WebM and FLV are whole milliseconds, and stay so in what is made of them."""

STATE_THEIR_LENGTH = {"matroska", "flv", "asf"}
"""Formats whose header tells a length that their end can be checked with."""

SEEKABLE = {"mov", "matroska"}
"""Formats whose index leads to the very frame that was asked for."""

SLACK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The constant-rate frames of a video: ``num_frames`` of them, ``interval`` apart.

    Times are in ticks of the stream. Constant-rate frame ``i`` stands for the time from
    ``first + i * interval`` on for one interval; it is what is shown in the middle of it. So a
    frame that comes less than half an interval too early or too late keeps its place, as in
    ffmpeg's filter ``fps``.

    Attributes:
        first: When the first frame is shown.
        last: When the last frame of the file is shown.
        interval: Of the constant-rate frames.
        num_frames: As many as the file has.
        fps: Frames per second.
        steady: Whether the constant-rate frames are the file's own, each once.
        late_s: How long after the start of the file the first frame comes.
        keyframes: Where decoding can start besides the first frame, in their order.
    """

    first: int
    last: int
    interval: Fraction
    num_frames: int
    fps: Fraction
    steady: bool
    late_s: float
    keyframes: tuple[int, ...]

    def shows(self, time: int, index: int) -> bool:
        """Whether a frame of this time has come when constant-rate frame ``index`` is taken."""
        step = self.interval
        return 2 * (time - self.first) * step.denominator < (2 * index + 1) * step.numerator

    def keyframe_before(self, index: int) -> int | None:
        """The last place to start decoding for a constant-rate frame; ``None``: the start."""
        moment = self.first + (index + Fraction(1, 2)) * self.interval
        count = bisect_right(self.keyframes, moment)
        while count and not self.shows(self.keyframes[count - 1], index):
            count -= 1
        return self.keyframes[count - 1] if count else None


def timing_of(path: str | Path) -> Timing:
    """Read the times of all frames of a local file, without decoding any; remembers some files.

    The rate is the header's where the times follow it up to rounding, else the average.

    Raises:
        MediaError: If the file cannot be read, ends early, or has no video.
    """
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error
    return _timing(str(path), stat.st_size, stat.st_mtime_ns)


# Scenes of one file are read one after the other; a film has hundreds.
@lru_cache(maxsize=16)
def _timing(path: str, _size: int, _modified: int) -> Timing:
    with open_media(path) as container:
        stream, rate = video_stream(container, path)
        tick = stream.time_base
        if not tick:
            raise MediaError(f"the video of {path} has no time base")
        times, keyframes, end = _packet_times(container, stream, path)
        rates = [rate, *([stream.guessed_rate] if stream.guessed_rate else [])]
        interval, steady = _interval(times, end, [1 / (rate * tick) for rate in rates], tick)
        start = container.start_time
        late = 0 if start is None else times[0] * tick - Fraction(start, av.time_base)
        return Timing(
            first=times[0],
            last=times[-1],
            interval=interval,
            num_frames=len(times),
            fps=1 / (interval * tick),
            steady=steady,
            late_s=float(late),
            keyframes=tuple(keyframes) if _formats(container) & SEEKABLE else (),
        )


def _packet_times(
    container: InputContainer, stream: VideoStream, path: str
) -> tuple[list[int], list[int], int]:
    """Times of the frames and of the keyframes behind the first one, sorted; when the last ends."""
    times: list[tuple[int, int]] = []
    keyframes: list[int] = []
    end_s = Fraction(0)
    for packet in container.demux():
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.size == 0:
            continue
        if packet.time_base is not None:
            end_s = max(end_s, (time + (packet.duration or 0)) * packet.time_base)
        if packet.stream_index != stream.index:
            continue
        if packet.is_keyframe:
            keyframes.append(time)
        # What comes before the first keyframe cannot be decoded.
        if keyframes and time >= keyframes[0] and not packet.is_discard:
            times.append((time, packet.duration or 0))
    _check_length(container, float(end_s), path)
    if not times:
        raise MediaError(f"the video of {path} has no frames")
    times.sort()
    last, duration = times[-1]
    return [time for time, _ in times], sorted(keyframes[1:]), last + duration


def _check_length(container: InputContainer, end_s: float, path: str) -> None:
    if container.duration is None or not _formats(container) & STATE_THEIR_LENGTH:
        return
    stated_s = ((container.start_time or 0) + container.duration) / av.time_base
    if stated_s - end_s > SLACK_S:
        raise MediaError(
            f"{path} ends early: its header tells of {stated_s:.3f} s, and it ends after "
            f"{end_s:.3f} s"
        )


def _interval(
    times: list[int], end: int, stated: list[Fraction], tick: Fraction
) -> tuple[Fraction, bool]:
    """Ticks between frames at a constant rate, and whether each frame keeps its place."""
    if len(times) == 1:
        return stated[0], True
    shown = np.array(times, np.float64) - times[0]
    rounding = max(Fraction(1), ROUNDING_S / tick)
    for interval in stated:
        if _deviation(shown, interval) <= min(float(rounding), 0.49 * float(interval)):
            return interval, True
    mean = Fraction(times[-1] - times[0], len(times) - 1)
    if _deviation(shown, mean) < 0.5 * float(mean):
        return mean, True
    # As containers do, the last frame counts with its own duration, if that is known.
    interval = Fraction(end - times[0], len(times)) if end > times[-1] else mean
    # All frames may have the same time.
    return interval if interval > 0 else stated[0], False


def _deviation(shown: NDArray[np.float64], interval: Fraction) -> float:
    return float(np.abs(shown - np.arange(len(shown)) * float(interval)).max())


def _formats(container: InputContainer) -> set[str]:
    return set(container.format.name.split(","))
