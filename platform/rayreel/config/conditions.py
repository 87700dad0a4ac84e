"""What a request may take from files: images, videos and sound that condition the clip, adapters.

Relative paths start at the prompt list's folder.
"""

from typing import Literal

from pydantic import Field, model_validator

from rayreel.config.base import StrictModel


class AdapterSpec(StrictModel):
    """A LoRA file, fused into the transformer when it is loaded."""

    path: str = Field(
        description="safetensors file, or the name of one in the adapter library: the folder that "
        "RAYREEL_ADAPTERS names, by default ~/.local/share/rayreel/adapters"
    )
    strength: float = Field(
        default=1.0, allow_inf_nan=False, description="factor of the adapter; 0 leaves it out"
    )


class ImageCondition(StrictModel):
    """An image that a frame of the clip shall show."""

    path: str = Field(description="file or URI; a relative path starts at the prompt list's folder")
    frame: int = Field(default=0, ge=0, description="pixel frame that it conditions")
    strength: float = Field(default=1.0, ge=0, le=1, description="1 keeps it, 0 ignores it")
    crf: int | None = Field(
        default=None,
        ge=0,
        le=51,
        description="H.264 quality of the re-compression before encoding, 0 for none; "
        "by default the checkpoint's generation decides",
    )


class VideoReference(StrictModel):
    """A video that an in-context adapter (IC-LoRA) follows."""

    path: str = Field(description="video file or URI; frames past the clip's last are not read")
    strength: float = Field(default=1.0, ge=0, le=1, description="1 keeps it, 0 ignores it")
    attention: float = Field(
        default=1.0, ge=0, le=1, description="how strongly clip and reference attend to each other"
    )
    mask: str | None = Field(
        default=None,
        description="grey video or image, white where the reference counts; times `attention`",
    )


class Soundtrack(StrictModel):
    """Sound that a picture is made for; the clip keeps it as it is."""

    path: str = Field(description="file or URI with sound")
    start_s: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="where to start")
    duration_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="seconds to take; by default as long as the clip, whose length follows from it "
        "where the row states none",
    )


class Retake(StrictModel):
    """A stretch of a video that is made anew; size, length and rate are the video's."""

    path: str = Field(description="video file or URI, of 8k + 1 frames")
    start_s: float = Field(ge=0, allow_inf_nan=False, description="start of the stretch")
    end_s: float = Field(gt=0, allow_inf_nan=False, description="end of the stretch")
    video: bool = Field(default=True, description="whether the picture is made anew")
    audio: bool = Field(default=True, description="whether the sound is made anew")
    guided: bool = Field(
        default=False, description="guided by the request's steps, instead of distilled weights"
    )

    @model_validator(mode="after")
    def _something_is_retaken(self) -> "Retake":
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s={self.end_s:g} must be after start_s={self.start_s:g}")
        if not (self.video or self.audio):
            raise ValueError("retakes neither video nor audio; set one of them to true")
        return self


class Extension(StrictModel):
    """A clip that is made longer; size and rate are the clip's, the request's length is added."""

    path: str | None = Field(default=None, description="video file or URI")
    clip: str | None = Field(default=None, description="or the id of a finished clip")
    run: str | None = Field(
        default=None,
        description="run directory of `clip`; by default the job's own output",
    )
    direction: Literal["forward", "backward"] = Field(
        default="forward", description="whether what is added comes after it or before"
    )
    latents: str | None = Field(
        default=None,
        description="latents that its end, or start, was decoded from; set for clips of a run that "
        "kept them. Without, the frames are encoded",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Extension":
        if (self.path is None) == (self.clip is None):
            raise ValueError("expected either path or clip")
        return self


class Chain(StrictModel):
    """How a clip longer than one chunk is made: each chunk goes on from the end of the last one."""

    chunk_frames: int | None = Field(
        default=None,
        gt=0,
        description="frames of one chunk, 8k + 1; by default the longest that the transformer's "
        "positions cover",
    )
    overlap: int = Field(
        default=2, ge=1, le=16, description="latent frames that are handed to the next chunk"
    )
    trim: Literal["exact", "whole"] = Field(
        default="exact",
        description="frames cut off the start of the next chunk: those that the overlap decodes "
        "to, 8 (K - 1) + 1, or 8 K, which also cuts 7 new ones",
    )

    def trimmed(self, time_factor: int) -> int:
        """Frames cut off at a joint.

        Args:
            time_factor: Pixel frames per latent frame.
        """
        if self.trim == "whole":
            return time_factor * self.overlap
        return time_factor * (self.overlap - 1) + 1
