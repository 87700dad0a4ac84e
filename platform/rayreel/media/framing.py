"""How frames are brought to the size of a bucket: resized until they cover it, then cropped.

The numbers are those of the public trainer: bicubic with anti-aliasing, sizes rounded down.
"""

from collections.abc import Generator, Iterable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor


def covering_size(width: int, height: int, bucket_w: int, bucket_h: int) -> tuple[int, int]:
    """Width and height that a picture is resized to, so that it covers a bucket.

    Args:
        width: Pixels of the picture.
        height: Pixels of the picture.
        bucket_w: Pixels to cover.
        bucket_h: Pixels to cover.
    """
    if width * bucket_h > bucket_w * height:
        return width * bucket_h // height, bucket_h
    return bucket_w, height * bucket_w // width


def crop_surplus(width: int, height: int, bucket_w: int, bucket_h: int) -> tuple[int, int]:
    """Rows and columns of a resized picture that a bucket has no room for: the largest crop."""
    covering_w, covering_h = covering_size(width, height, bucket_w, bucket_h)
    return covering_h - bucket_h, covering_w - bucket_w


def center_crop(width: int, height: int, bucket_w: int, bucket_h: int) -> tuple[int, int]:
    """Top and left of the middle of a resized picture."""
    rows, columns = crop_surplus(width, height, bucket_w, bucket_h)
    return rows // 2, columns // 2


def resize_and_crop(frames: Tensor, *, height: int, width: int, crop: tuple[int, int]) -> Tensor:
    """Frames as the video VAE reads them, at the size of a bucket; see :func:`resize_each`.

    Args:
        frames: RGB ``(F, H, W, 3)`` from 0 to 255, ``uint8`` or floating point, on the CPU.
        height: Of the bucket.
        width: Of the bucket.
        crop: Top and left of the part of the resized frames that is kept.

    Returns:
        Float32 ``(3, F, height, width)`` in [-1, 1].

    Raises:
        ValueError: If the crop does not lie in the resized frames.
    """
    result = torch.empty(frames.shape[3], len(frames), height, width)
    for index, pixels in enumerate(resize_each(frames, height=height, width=width, crop=crop)):
        result[:, index] = pixels
    return result


def resize_each(
    frames: Iterable[Tensor], *, height: int, width: int, crop: tuple[int, int]
) -> Generator[Tensor, None, None]:
    """Frames as the video VAE reads them, one after the other as they are asked for.

    Each is resized by itself and by one thread, which holds no lock: the result does not depend on
    those beside it, and several videos can be resized at once. Torch's own resizing takes twice
    the time on a CPU, and starts threads for each frame. One call for many frames is faster than
    one for each, as it keeps its memory.

    Args:
        frames: RGB ``(H, W, 3)``, else as in :func:`resize_and_crop`.
        height: Of the bucket.
        width: Of the bucket.
        crop: Top and left of the part of the resized frames that is kept.

    Yields:
        Float32 ``(3, height, width)`` in [-1, 1]; not stored in that order.

    Raises:
        ValueError: If the crop does not lie in the resized frames.
    """
    top, left = crop
    for frame in frames:
        old_height, old_width, channels = frame.shape
        rows, columns = crop_surplus(old_width, old_height, width, height)
        if not (0 <= top <= rows and 0 <= left <= columns):
            raise ValueError(
                f"crop at top {top}, left {left} does not fit: {old_width}x{old_height} resized "
                f"for {width}x{height} leaves up to {rows} rows and {columns} columns"
            )
        down = _weights(old_height, height + rows)[top : top + height]
        across = _weights(old_width, width + columns)[left : left + width]
        flat = frame.numpy().reshape(old_height, -1).astype(np.float32, copy=False)
        # Sparse products sum over the first axis: rows first, then columns.
        tall: NDArray[np.float32] = (down @ flat).reshape(height, old_width, channels)
        columns_first = tall.transpose(1, 2, 0).reshape(old_width, -1)
        pixels: NDArray[np.float32] = across @ columns_first
        np.clip(pixels, 0, 255, out=pixels)
        pixels /= 127.5
        pixels -= 1
        yield torch.from_numpy(pixels.reshape(width, channels, height).transpose(1, 2, 0))


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> csr_matrix:
    """What each of ``new`` positions of an axis takes of the ``old`` ones, as torch weighs them."""
    identity = torch.eye(old)[None, None]
    resized = F.interpolate(identity, (new, old), mode="bicubic", antialias=True)
    return csr_matrix(resized[0, 0].numpy())
