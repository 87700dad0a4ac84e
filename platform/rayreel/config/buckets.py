"""Resolution buckets: the sizes that clips of a dataset are brought to."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field, model_validator

from rayreel.config.base import StrictModel


class Bucket(StrictModel):
    """A size of clips, written as ``WxHxF`` such as ``768x448x89``."""

    width: int = Field(ge=1, description="pixels")
    height: int = Field(ge=1, description="pixels")
    num_frames: int = Field(ge=1, description="frames; 1 is an image")

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:  # noqa: ANN401 - text, or the fields
        if not isinstance(value, str):
            return value
        try:
            width, height, frames = (int(part) for part in value.split("x"))
        except ValueError as error:
            raise ValueError(
                f"bucket {value.strip()!r} should be WIDTHxHEIGHTxFRAMES, such as 768x448x89"
            ) from error
        return {"width": width, "height": height, "num_frames": frames}

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.width}x{self.height}x{self.num_frames}"


def split_buckets(value: Any) -> Any:  # noqa: ANN401 - text, or a list
    """Buckets in one text, apart: ``768x448x89;512x768x89``; anything else as it is."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(";") if part.strip()]


def bucket_faults(buckets: Iterable[Bucket], *, time: int, space: int) -> list[str]:
    """What is wrong with buckets for a video VAE, with the nearest size that is right.

    Args:
        buckets: Any.
        time: Pixel frames per latent frame.
        space: Pixels per latent position along width and height.
    """
    found = []
    for bucket in buckets:
        for name, value in (("width", bucket.width), ("height", bucket.height)):
            if value % space:
                near = max(space, round(value / space) * space)
                found.append(
                    f"bucket {bucket}: {name} {value} is no multiple of {space}; nearest is {near}"
                )
        if (bucket.num_frames - 1) % time:
            below = (bucket.num_frames - 1) // time * time + 1
            found.append(
                f"bucket {bucket}: {bucket.num_frames} frames do not fit the video VAE "
                f"({time}k + 1); nearest are {below} and {below + time}"
            )
    return found
