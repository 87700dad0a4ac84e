"""Frames of a file at a constant rate: the one account of which frame is which."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.image import is_still, load_image
from rayreel.media.orientation import upright_pixels
from rayreel.media.shown import shown_frames
from rayreel.media.timing import timing_of


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
