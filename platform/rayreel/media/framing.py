"""How frames are brought to the size of a bucket: resized until they cover it, then cropped.

The numbers are those of the public trainer: bicubic with anti-aliasing, sizes rounded down.
"""

import torch
import torch.nn.functional as F
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
    """Frames as the video VAE reads them, at the size of a bucket.

    Each frame is resized by itself: the result does not depend on how many there are, and memory
    is that of the result and one frame.

    Args:
        frames: RGB ``(F, H, W, 3)`` from 0 to 255, ``uint8`` or floating point, on any device.
        height: Of the bucket.
        width: Of the bucket.
        crop: Top and left of the part of the resized frames that is kept.

    Returns:
        Float32 ``(3, F, height, width)`` in [-1, 1].

    Raises:
        ValueError: If the crop does not lie in the resized frames.
    """
    count, old_height, old_width, channels = frames.shape
    rows, columns = crop_surplus(old_width, old_height, width, height)
    top, left = crop
    if not (0 <= top <= rows and 0 <= left <= columns):
        raise ValueError(
            f"crop at top {top}, left {left} does not fit: {old_width}x{old_height} resized for "
            f"{width}x{height} leaves up to {rows} rows and {columns} columns"
        )
    size = (height + rows, width + columns)
    result = torch.empty((channels, count, height, width), device=frames.device)
    for index, frame in enumerate(frames):
        pixels = frame.movedim(-1, 0)[None].float()
        if size != (old_height, old_width):
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
        kept = pixels[0, :, top : top + height, left : left + width]
        # Frame by frame, while it is in the cache.
        result[:, index] = kept.clamp(0, 255).div_(127.5).sub_(1)
    return result
