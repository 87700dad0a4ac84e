"""Decoded frames of a video at its constant rate, as they come; needs no torch."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import av

from rayreel.errors import MediaError
from rayreel.media.container import open_media, video_stream
from rayreel.media.orientation import upright_size
from rayreel.media.timing import Timing

HDR_TRANSFERS = {16: "smpte2084 (PQ)", 18: "arib-std-b67 (HLG)"}
"""Brightness curves of HDR video, by ffmpeg's numbers."""


def shown_frames(
    path: str | Path, timing: Timing, *, start: int = 0
) -> Generator[av.VideoFrame, None, None]:
    """Decoded frames at the constant rate, from one on; one that stands longer comes repeatedly.

    Args:
        path: The file that the timing belongs to.
        timing: Of :func:`rayreel.media.timing.timing_of`.
        start: First frame.

    Raises:
        MediaError: If the file cannot be read, or what is shown is HDR, damaged, or of several
            sizes.
    """
    keyframe = timing.keyframe_before(start)
    if keyframe is not None:
        with _decoding(path, keyframe) as frames:
            first = next(frames, None)
            if first is not None and first.pts is not None and timing.shows(first.pts, start):
                yield from _at_constant_rate(chain([first], frames), timing, path, start)
                return
    with _decoding(path, None) as frames:
        yield from _at_constant_rate(frames, timing, path, start)


@contextmanager
def _decoding(path: str | Path, keyframe: int | None) -> Iterator[Iterator[av.VideoFrame]]:
    with open_media(path) as container:
        stream, _ = video_stream(container, path)
        stream.thread_type = "AUTO"
        if keyframe is not None:
            container.seek(keyframe, stream=stream)
        yield container.decode(stream)


def _at_constant_rate(
    frames: Iterable[av.VideoFrame], timing: Timing, path: str | Path, start: int
) -> Generator[av.VideoFrame, None, None]:
    index, shown = start, None
    size: tuple[int, int] | None = None
    for frame in frames:
        if frame.pts is None:
            raise MediaError(f"the video of {path} has frames that do not tell their time")
        while index < timing.num_frames and not timing.shows(frame.pts, index):
            shown = shown or frame
            size = _check(shown, size, path, index)
            yield shown
            index += 1
        if index >= timing.num_frames:
            return
        shown = frame
    if shown is None or shown.pts is None:
        raise MediaError(f"the video of {path} has no frames that can be decoded")
    # A decoder that has lost the very last frame may still have lost nothing of a picture: fields
    # of interlaced video can come apart.
    if timing.last - shown.pts > 2 * timing.interval:
        raise MediaError(
            f"the video of {path} ends early: the last {timing.num_frames - index - 1} of "
            f"{timing.num_frames} frames cannot be decoded"
        )
    while index < timing.num_frames:
        size = _check(shown, size, path, index)
        yield shown
        index += 1


def _check(
    frame: av.VideoFrame, size: tuple[int, int] | None, path: str | Path, index: int
) -> tuple[int, int]:
    if frame.color_trc in HDR_TRANSFERS:
        raise MediaError(
            f"the video of {path} is HDR, with transfer {HDR_TRANSFERS[frame.color_trc]}; expected "
            "SDR: map its tones to BT.709 first, such as with ffmpeg's filters zscale and tonemap"
        )
    if frame.is_corrupt:
        raise MediaError(f"the video of {path} is damaged at frame {index}, counted from 0")
    found = upright_size(frame)
    if size is not None and found != size:
        raise MediaError(
            f"the video of {path} changes its size at frame {index}, from {size[0]}x{size[1]} to "
            f"{found[0]}x{found[1]}: save it in one size"
        )
    return found
