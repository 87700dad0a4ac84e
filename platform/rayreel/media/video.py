"""The frames of a file, upright, with their sound."""

from collections import deque
from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from numpy.typing import NDArray
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.audio import read_audio
from rayreel.media.container import open_media, video_stream
from rayreel.media.image import is_still, load_image
from rayreel.media.orientation import upright_pixels
from rayreel.types import Clip


def read_clip(source: str | Path, *, max_frames: int | None = None, sound: bool = True) -> Clip:
    """Read a video and its sound.

    Args:
        source: A media file: a local path, or a URI that fsspec opens.
        max_frames: Frames to read at most; ``None`` for all.
        sound: Whether to read the sound.

    Returns:
        Frames at the file's own size and rate; sound at its own rate and with its own channels, no
        longer than the frames.

    Raises:
        MediaError: If the file cannot be read, or has no video.
    """
    with open_media(source) as container:
        _, rate = video_stream(container, source)
        frames = list(_pictures(islice(_decoded(container, source), max_frames), source))
    if not frames:
        raise MediaError(f"the video of {source} has no frames")
    return Clip(
        frames=torch.from_numpy(np.stack(frames)),
        fps=float(rate),
        audio=read_audio(source, max_duration_s=float(len(frames) / rate)) if sound else None,
    )


def stream_frames(
    source: str | Path, *, start: int = 0, stop: int | None = None, chunk: int = 8
) -> Generator[Tensor, None, None]:
    """Frames of a video one chunk after the other, in memory that its length does not change.

    Args:
        source: A media file: a local path, or a URI that fsspec opens.
        start: First frame, counted from 0; what comes before it is decoded too.
        stop: Frame to stop before; ``None``, or any number behind the end, for all.
        chunk: Frames of a chunk; the last one may have fewer.

    Yields:
        RGB ``uint8`` ``(F, H, W, 3)``; nothing if the video ends before ``start``.

    Raises:
        MediaError: If the file cannot be read, or has no video.
        ValueError: If ``start``, ``stop`` or ``chunk`` is out of range.
    """
    if start < 0 or chunk < 1 or (stop is not None and stop < start):
        raise ValueError(
            f"start={start}, stop={stop}, chunk={chunk}: expected 0 <= start <= stop and a chunk "
            "of at least 1 frame"
        )
    with open_media(source) as container:
        frames = _pictures(islice(_decoded(container, source), start, stop), source)
        while part := list(islice(frames, chunk)):
            yield torch.from_numpy(np.stack(part))


def read_last_frames(source: str | Path, count: int) -> Tensor:
    """The end of a video, in memory that its length does not change.

    Args:
        source: A media file: a local path, or a URI that fsspec opens.
        count: Frames to return, at least 1.

    Returns:
        RGB ``uint8`` ``(count, H, W, 3)``.

    Raises:
        MediaError: If the file cannot be read, or has no video or fewer frames.
        ValueError: If ``count`` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count={count}: expected at least 1 frame")
    num_frames = 0
    last: deque[av.VideoFrame] = deque(maxlen=count)
    with open_media(source) as container:
        for frame in _decoded(container, source):
            num_frames += 1
            last.append(frame)
    if num_frames < count:
        raise MediaError(
            f"the video of {source} has {num_frames} frames; the last {count} were asked for"
        )
    return torch.from_numpy(np.stack(list(_pictures(last, source))))


def read_mask(source: str | Path, *, max_frames: int | None = None) -> Tensor:
    """Read a mask, from a video or from one still image.

    Args:
        source: A PNG, JPEG or WebP image, which counts as one frame, or a media file: a local
            path, or a URI that fsspec opens. What it is, its content says and not its name.
        max_frames: Frames to read at most; ``None`` for all.

    Returns:
        Float32 ``(F, H, W)``: 0 for black to 1 for white. Of coloured pixels, the mean of the
        three channels.

    Raises:
        MediaError: If the file cannot be read, or is neither an image nor a video.
    """
    if is_still(source):
        return _brightness(load_image(source)[None])
    parts = [_brightness(part) for part in stream_frames(source, stop=max_frames)]
    if not parts:
        raise MediaError(f"the video of {source} has no frames")
    return torch.cat(parts)


def _decoded(container: InputContainer, source: str | Path) -> Generator[av.VideoFrame, None, None]:
    stream, _ = video_stream(container, source)
    stream.thread_type = "AUTO"
    yield from container.decode(stream)


def _pictures(
    frames: Iterable[av.VideoFrame], source: str | Path
) -> Generator[NDArray[np.uint8], None, None]:
    """Upright RGB frames ``(H, W, 3)``, all of one size."""
    size: tuple[int, ...] | None = None
    for frame in frames:
        pixels = upright_pixels(frame)
        size = size or pixels.shape
        if pixels.shape != size:
            raise MediaError(
                f"the video of {source} changes its size, from {size[1]}x{size[0]} to "
                f"{pixels.shape[1]}x{pixels.shape[0]}: save it in one size"
            )
        yield pixels


def _brightness(pixels: Tensor) -> Tensor:
    return pixels.float().mean(-1) / 255
