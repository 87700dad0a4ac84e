"""What a media file holds, from decoding it once: facts, cuts, and small pictures to measure."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayreel.config.encode import SceneSpec
from rayreel.errors import MediaError
from rayreel.media.container import moving_stream, open_media
from rayreel.media.image import is_still, load_image
from rayreel.media.loudness import read_loudness
from rayreel.media.orientation import Orientation, upright_pixels, upright_size
from rayreel.media.scenes import CutFinder
from rayreel.media.shown import shown_frames
from rayreel.media.timing import Timing, timing_of

THUMB = 32
"""Pixels of a side of the small pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """What a file holds.

    Attributes:
        kind: By its content.
        width: Of the upright picture; 0 for sound alone.
        height: Of the upright picture; 0 for sound alone.
        fps: Of the frames at a constant rate; 1 for an image, 0 for sound alone.
        num_frames: At the constant rate; 0 for sound alone.
        duration_s: Of the picture, or of sound alone.
        sound_s: Length of the sound; ``None`` without sound.
        channels: Of the sound.
        notes: What is unusual, a sentence each.
        cuts: First frames of the scenes; the first is 0.
        thumbs: Brightness of each frame, ``uint8`` ``(F, 32, 32)``, upright and squeezed to a
            square.
        loudness: Float32, root mean square of each twentieth of a second of the sound.
    """

    kind: Literal["video", "image", "audio"]
    width: int = 0
    height: int = 0
    fps: float = 0.0
    num_frames: int = 0
    duration_s: float
    sound_s: float | None = None
    channels: int = 0
    notes: tuple[str, ...] = ()
    cuts: tuple[int, ...] = (0,)
    thumbs: NDArray[np.uint8]
    loudness: NDArray[np.float32] | None = None


def examine(path: Path, scenes: SceneSpec | None = None) -> Footage:
    """Decode a file once, from start to end, in memory for its small pictures alone.

    Frames are those that :func:`rayreel.media.frames.read_frames` returns.

    Args:
        path: A local file.
        scenes: How to look for cuts; by default the file is one scene.

    Raises:
        MediaError: If the file cannot be read, is damaged, cut off or HDR, or has neither picture
            nor sound. A video whose sound cannot be decoded counts as silent, with a note.
    """
    if is_still(path):
        return _image(path)
    with open_media(path) as container:
        has_video = moving_stream(container) is not None
    if has_video:
        return _video(path, scenes)
    sound = read_loudness(path)
    if sound is None:
        raise MediaError(f"{path} has neither a picture nor a sound")
    return Footage(
        kind="audio",
        duration_s=sound.duration_s,
        sound_s=sound.duration_s,
        channels=sound.channels,
        thumbs=np.zeros((0, THUMB, THUMB), np.uint8),
        loudness=sound.levels,
    )


def _image(path: Path) -> Footage:
    pixels = load_image(path).numpy()
    grey = Image.fromarray(pixels).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    height, width = pixels.shape[:2]
    return Footage(
        kind="image",
        width=width,
        height=height,
        fps=1.0,
        num_frames=1,
        duration_s=1.0,
        thumbs=np.asarray(grey)[None],
    )


def _video(path: Path, scenes: SceneSpec | None) -> Footage:
    timing = timing_of(path)
    notes: list[str] = []
    try:
        sound = read_loudness(path)
    except MediaError:
        # The picture is worth having without it. What is wrong with the whole file shows below.
        sound = None
        notes.append("its sound cannot be decoded, and counts as none")
    finder = CutFinder(scenes, timing.fps) if scenes else None
    thumbs = np.empty((timing.num_frames, THUMB, THUMB), np.uint8)
    first = last = None
    for index, frame in enumerate(shown_frames(path, timing)):
        first = first or frame
        thumbs[index] = thumbs[index - 1] if frame is last else _thumb(frame)
        if finder:
            finder.show(upright_pixels(frame))
        last = frame
    assert first is not None, "a video without frames has no timing"
    width, height = upright_size(first)
    return Footage(
        kind="video",
        width=width,
        height=height,
        fps=float(timing.fps),
        num_frames=timing.num_frames,
        duration_s=float(timing.num_frames / timing.fps),
        sound_s=sound.duration_s if sound else None,
        channels=sound.channels if sound else 0,
        notes=(*_notes(path, timing, first), *notes),
        cuts=finder.cuts() if finder else (0,),
        thumbs=thumbs,
        loudness=sound.levels if sound else None,
    )


def _thumb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    small = frame.reformat(THUMB, THUMB, "gray", interpolation="AREA").to_ndarray()
    return Orientation.of(frame).upright(cast("NDArray[np.uint8]", small))


def _notes(path: Path, timing: Timing, frame: av.VideoFrame) -> list[str]:
    notes = []
    if not timing.steady:
        notes.append(
            "the frame rate varies; frames are taken at the average of "
            f"{float(timing.fps):.6g} per second"
        )
    if timing.late_s > 1 / timing.fps:
        notes.append(f"the picture starts {timing.late_s:.3g} s after the file")
    if any(component.is_alpha for component in frame.format.components):
        notes.append("transparency is left out")
    if frame.interlaced_frame:
        notes.append("the video is interlaced; its fields are not taken apart")
    shape = _pixel_shape(path)
    if shape != 1:
        notes.append(
            f"pixels are not square but {shape.numerator}:{shape.denominator}; they are taken as "
            "if they were"
        )
    return notes


def _pixel_shape(path: Path) -> Fraction:
    with open_media(path) as container:
        stream = moving_stream(container)
        return (stream.sample_aspect_ratio if stream else None) or Fraction(1)
