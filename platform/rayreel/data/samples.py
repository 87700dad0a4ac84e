"""What a dataset is made of: what a scan finds in a file, and what is to be encoded of it."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from rayreel.config.base import StrictModel
from rayreel.config.buckets import Bucket


class Scene(StrictModel):
    """A stretch of a video that is a sample of its own; an image, a sound: all of it."""

    start: int = Field(default=0, ge=0, description="first frame")
    num_frames: int = Field(ge=0, description="0 for sound alone")
    measures: dict[str, float] = Field(default_factory=dict, description="by name")
    phash: str = Field(default="", description="perceptual hash, 64 hexadecimal digits")


class Scan(StrictModel):
    """What a file holds, from reading it once.

    Sizes are those of the upright picture.
    """

    content: str = Field(description="hash of the file's bytes")
    kind: Literal["video", "image", "audio", "file"] = Field(
        description="file: nothing was looked at but its bytes"
    )
    width: int = 0
    height: int = 0
    num_frames: int = Field(default=0, description="at a constant rate")
    fps: float = Field(default=0.0, description="1 for an image")
    duration_s: float = Field(default=0.0, description="of the picture, or of sound alone")
    late_s: float = Field(
        default=0.0, ge=0, description="how long after the file's start the picture comes"
    )
    sound_s: float | None = Field(default=None, description="of the sound; none for a silent file")
    channels: int = 0
    notes: tuple[str, ...] = Field(default=(), description="what is unusual, a sentence each")
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Frames of a video, or an image, as they are to be encoded.

    Attributes:
        source: Path or URI.
        content: Hash of the file's bytes.
        start: First frame, of the video at a constant rate.
        fps: Of the frames that are encoded; of the source divided by ``stride``; 1 for an image.
        bucket: Size that the frames are brought to, and how many there are.
        crop: Top and left of the part of the resized picture that is kept.
        stride: After the first frame, one of so many is taken.
    """

    source: str
    content: str
    start: int = 0
    fps: float
    bucket: Bucket
    crop: tuple[int, int]
    stride: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A stretch of sound as it is to be encoded.

    Attributes:
        source: Path or URI, of a video too.
        content: Hash of the file's bytes.
        start_s: Where it starts, in the file's time.
        duration_s: Cut or filled up with silence to this length.
    """

    source: str
    content: str
    start_s: float = 0.0
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What of a clip is kept as a condition.

    Attributes:
        source: Path or URI.
        content: Hash of the file's bytes.
        start: First frame of a picture's mask.
        of: What it belongs to, which says its size.
    """

    source: str
    content: str
    start: int = 0
    of: Picture | Sound


Medium = Picture | Sound | Mask
