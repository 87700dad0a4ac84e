"""Images that condition a clip: file to RGB, compression round trip, resize and crop, model range.

The order of the steps matters: the compression round trip happens at the image's own size, before
resizing. Letters: H height, W width, C channels, F frames.
"""

import io
import math
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.files import open_file
from rayreel.media.still import decode_still

MAX_CRF = 51


def load_image(source: bytes | str | Path) -> Tensor:
    """Read an image as it is meant to be seen: upright and in sRGB, transparency dropped.

    Args:
        source: An encoded image, or where one is: a local path, or a URI that fsspec opens.

    Returns:
        RGB ``uint8`` ``(H, W, 3)``.

    Raises:
        MediaError: If the file is missing, damaged, not an image, or too large to decode safely.
    """
    return torch.from_numpy(decode_still(source))


def write_image(path: str | Path, frame: Tensor) -> None:
    """Write a frame as PNG; the same bytes for the same frame.

    Args:
        path: Local file to write; its folder exists.
        frame: RGB ``uint8`` ``(H, W, 3)`` on any device.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the frame is not like that.
    """
    if frame.dtype != torch.uint8 or frame.dim() != 3 or frame.shape[2] != 3 or not frame.numel():
        raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {tuple(frame.shape)}")
    Image.fromarray(frame.cpu().numpy()).save(path, "PNG")


def is_still(source: str | Path) -> bool:
    """Whether a file is a PNG, JPEG or WebP image, by how it begins.

    Raises:
        MediaError: If the file cannot be read.
    """
    try:
        with open_file(source) as file:
            head = file.read(12)
    except OSError as error:
        raise MediaError(f"cannot read {source}: {error}") from error
    is_webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return is_webp or head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


def recompress(image: Tensor, crf: int) -> Tensor:
    """Give an image the look of a video frame: one H.264 frame, encoded and decoded again.

    The model was trained on frames of compressed video; a clean still would not look like one.

    Args:
        image: RGB ``uint8`` ``(H, W, 3)``.
        crf: Constant rate factor of x264, 0 to 51; 0 leaves the image as it is.

    Returns:
        RGB ``uint8``, cut at the bottom and the right to even sizes. Images that are less than two
        pixels high or wide come back unchanged.

    Raises:
        ValueError: If ``crf`` is out of range.
    """
    if not 0 <= crf <= MAX_CRF:
        raise ValueError(f"crf={crf} is out of range: x264 takes 0 to {MAX_CRF}")
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    if crf == 0 or min(height, width) == 0:
        return image
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream(
            "libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # x264's output depends on its thread count.
        stream.thread_count = 1
        pixels = np.ascontiguousarray(image[:height, :width].numpy())
        output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        return torch.from_numpy(next(source.decode(video=0)).to_ndarray(format="rgb24"))


def fit(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale to cover a size, then cut out its centre: bilinear, without anti-aliasing.

    Args:
        frames: ``(H, W, C)`` or ``(F, H, W, C)``, any range and dtype.
        height: Pixels that come out.
        width: Pixels that come out.

    Returns:
        Float32 ``(C, height, width)`` or ``(F, C, height, width)`` in the range of the input.
    """
    pixels = frames.movedim(-1, -3).float()
    old_height, old_width = pixels.shape[-2:]
    scale = max(height / old_height, width / old_width)
    size = (math.ceil(old_height * scale), math.ceil(old_width * scale))
    batched = pixels if pixels.dim() == 4 else pixels[None]
    resized = F.interpolate(batched, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    cropped = resized[..., top : top + height, left : left + width]
    return cropped if pixels.dim() == 4 else cropped[0]


def fit_long_side(image: Tensor, long_side: int) -> Tensor:
    """Scale an image so that its longer side has a given length, as the prompt enhancer reads it.

    Args:
        image: ``(H, W, C)``, any range and dtype.
        long_side: Pixels of the longer side that come out; the other side is rounded down.

    Returns:
        Float32 ``(H', W', C)`` in the range of the input.
    """
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    return fit(image, int(height * scale), int(width * scale)).movedim(0, -1)


def to_model_input(pixels: Tensor) -> Tensor:
    """Pixels as the video VAE reads them.

    Args:
        pixels: 0 to 255, ``(C, H, W)`` for an image or ``(F, C, H, W)`` for a video.

    Returns:
        Float32 ``(1, C, F, H, W)`` in [-1, 1].
    """
    frames = pixels if pixels.dim() == 4 else pixels[None]
    return (frames.float() / 127.5 - 1).movedim(1, 0)[None]
