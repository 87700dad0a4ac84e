"""Still images: an encoded file to RGB as it is meant to be seen; needs no torch."""

import io
import logging
import math
import struct
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from rayreel.errors import MediaError
from rayreel.media.files import open_file

logger = logging.getLogger(__name__)

# What Pillow's decoders raise on damaged data.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def decode_still(
    source: bytes | str | Path,
    *,
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> NDArray[np.uint8]:
    """Read an image upright and in sRGB, transparency dropped.

    Args:
        source: An encoded image, or where one is: a local path, or a URI that fsspec opens.
        max_pixels: A limit below Pillow's own.
        formats: By Pillow's names; by default all that it reads.

    Returns:
        RGB ``uint8`` ``(H, W, 3)``.

    Raises:
        MediaError: If the file is missing, damaged, not an image, or too large to decode safely.
    """
    name = f"image of {len(source)} bytes" if isinstance(source, bytes) else f"image {source}"
    limit = min(Image.MAX_IMAGE_PIXELS or math.inf, max_pixels or math.inf)
    try:
        data = source if isinstance(source, bytes) else _read(source)
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > limit:
                raise MediaError(
                    f"{name} has {image.width}x{image.height} pixels; at most {limit} are allowed"
                )
            upright = ImageOps.exif_transpose(image)
            return cast("NDArray[np.uint8]", np.array(_to_srgb(upright, name)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{name} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{name} is of no format that Pillow reads") from error
    except _DAMAGED as error:
        raise MediaError(f"cannot read {name}: {error}") from error


def _read(source: str | Path) -> bytes:
    with open_file(source) as file:
        return file.read()


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    image = _without_alpha(image)
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                io.BytesIO(profile),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except ImageCms.PyCMSError as error:
            logger.warning("%s: colour profile ignored, it does not fit the image: %s", name, error)
        else:
            assert converted is not None, "None comes back only from conversions in place"
            return converted
    return image.convert("RGB")


def _without_alpha(image: Image.Image) -> Image.Image:
    """The image in a mode that a colour profile describes: ``L``, ``RGB`` or ``CMYK``."""
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixel format {image.mode} has no known range; save with 8 or 16 bits")
    if image.mode == "LA":
        return image.convert("L")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    # Through RGBA, as Pillow warns about palettes with translucent entries otherwise.
    return image.convert("RGBA").convert("RGB")
