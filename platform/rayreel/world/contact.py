"""Frames of some clips with their captions, on one picture to look at."""

import json
import textwrap
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rayreel.media.video import read_clip

_COLUMNS = 3
_FRAMES = 5
_HEIGHT = 96
_TEXT_HEIGHT = 34
_GAP = 4
_FRAME_GAP = 2


def contact_sheet(manifest: Path, path: Path, *, most: int = 24) -> None:
    """Write a picture of the first clips of a list, as JPEG.

    Args:
        manifest: The list that :func:`rayreel.world.dataset.write_clips` has written.
        path: File to write.
        most: Clips.

    Raises:
        MediaError: If a clip cannot be read.
        OSError: If the list cannot be read, or the picture not written.
    """
    with manifest.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, most)]
    strips = [_strip(manifest.parent / row["media_path"], row["caption"]) for row in rows]
    if not strips:
        raise ValueError(f"{manifest} has no clips")
    width, height = strips[0].size
    lines = -(-len(strips) // _COLUMNS)
    size = (min(_COLUMNS, len(strips)) * (width + _GAP), lines * (height + _GAP))
    sheet = Image.new("RGB", size, "white")
    for index, strip in enumerate(strips):
        line, column = divmod(index, _COLUMNS)
        sheet.paste(strip, (column * (width + _GAP), line * (height + _GAP)))
    sheet.save(path, "JPEG", quality=90)


def _strip(source: Path, caption: str) -> Image.Image:
    """Frames of a clip side by side, over its caption."""
    frames = read_clip(source, sound=False).frames.numpy()
    chosen = np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)
    width = round(_HEIGHT * frames.shape[2] / frames.shape[1])
    step = width + _FRAME_GAP
    strip = Image.new("RGB", (_FRAMES * step, _HEIGHT + _TEXT_HEIGHT), "white")
    for place, index in enumerate(chosen):
        strip.paste(Image.fromarray(frames[index]).resize((width, _HEIGHT)), (place * step, 0))
    font = ImageFont.load_default(12)
    # Capitals are wider.
    letters = int(0.95 * _FRAMES * step * len(caption) / max(font.getlength(caption), 1))
    text = "\n".join(textwrap.wrap(caption, max(letters, 1))[:2])
    ImageDraw.Draw(strip).multiline_text((2, _HEIGHT + 1), text, "black", font)
    return strip
