"""Frames of a file at a constant rate: the one account of which frame is which."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.container import open_media, video_stream
from rayreel.media.image import is_still, load_image
from rayreel.media.orientation import upright_pixels, upright_size
from rayreel.media.timing import Timing, timing_of

HDR_TRANSFERS = {16: "smpte2084 (PQ)", 18: "arib-std-b67 (HLG)"}
"""Brightness curves of HDR video, by ffmpeg's numbers."""


def frame_indices(count: int, stride: int) -> list[int]:
    """Which frames are taken: the first, then one of so many: 0, 1, 1 + stride, 1 + 2 stride, ...

    Args:
        count: How many to take.
        stride: Distance from the second one on; 1 takes all.
    """
    return [max(0, 1 + (position - 1) * stride) for position in range(count)]


def read_frames(path: str | Path, *, start: int = 0, count: int, stride: int = 1) -> Tensor:
    """Frames of a video at its constant rate, or an image as its only frame.

    Args:
        path: A local file. What it is, its content says and not its name.
        start: First frame.
        count: Frames to return, fewer if the video ends.
        stride: After the first frame, one of so many is taken; see :func:`frame_indices`.

    Returns:
        Upright RGB ``uint8`` ``(F, H, W, 3)``.

    Raises:
        MediaError: If the file cannot be read, has neither image nor video, is HDR, damaged or cut
            off as far as it was read, or ends before ``start``.
        ValueError: If a number is out of range.
    """
    frames = list(iterate_frames(path, start=start, count=count, stride=stride))
    if not frames:
        raise MediaError(f"the video of {path} ends before frame {start}, counted from 0")
    return torch.stack(frames)


def iterate_frames(
    path: str | Path, *, start: int = 0, count: int, stride: int = 1
) -> Generator[Tensor, None, None]:
    """The same as :func:`read_frames`, frame by frame; nothing if the video ends before.

    Yields:
        Upright RGB ``uint8`` ``(H, W, 3)``, all of one size.

    Raises:
        MediaError: As :func:`read_frames`.
        ValueError: If a number is out of range.
    """
    if start < 0 or count < 1 or stride < 1:
        raise ValueError(
            f"start={start}, count={count}, stride={stride}: expected a start of at least 0, and "
            "a count and a stride of at least 1"
        )
    if is_still(path):
        if start == 0:
            yield load_image(path)
        return
    left = iter(frame_indices(count, stride))
    wanted = next(left)
    for index, frame in enumerate(shown_frames(path, timing_of(path), start=start)):
        if index < wanted:
            continue
        yield torch.from_numpy(np.ascontiguousarray(upright_pixels(frame)))
        following = next(left, None)
        if following is None:
            return
        wanted = following


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
