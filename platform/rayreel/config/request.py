"""A request: everything that changes the pixels and the sound of one clip, and nothing else."""

import struct
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.conditions import (
    AdapterSpec,
    Chain,
    Extension,
    ImageCondition,
    Retake,
    Soundtrack,
    VideoReference,
)
from rayreel.config.sampling import Guidance

DEFAULT_NEGATIVE_PROMPT = (
    "blurry, out of focus, overexposed, underexposed, low contrast, washed out colors, noise, "
    "grain, flicker, ghosting, motion blur, compression artifacts, banding, deformed face, "
    "extra limbs, bad hands, uncanny skin, cartoon, 3d render, text, subtitles, watermark, logo, "
    "wrong perspective, camera shake, cluttered background, harsh light, jitter, abrupt cuts, "
    "frozen picture, lips out of sync, silence, distorted sound, echo, repeated dialogue"
)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("blank; expected at least one word")
    return text


def _levels(sigmas: tuple[float, ...]) -> tuple[float, ...]:
    if len(sigmas) < 2:
        raise ValueError(f"expected at least 2 noise levels, such as [1, 0], and got {len(sigmas)}")
    # Samplers compute in float32: levels that are different only beyond it are equal there.
    levels = [struct.unpack("f", struct.pack("f", sigma))[0] for sigma in sigmas]
    if not 0 < levels[0] <= 1:
        raise ValueError(f"noise level 0 is {sigmas[0]:g}; expected more than 0, and at most 1")
    for index, (before, level) in enumerate(pairwise(levels), start=1):
        if not level < before:
            raise ValueError(
                f"noise level {index} is {sigmas[index]:.9g}; expected less than the one before "
                f"it, {sigmas[index - 1]:.9g}"
            )
    if levels[-1] != 0:
        raise ValueError(f"noise level {len(levels) - 1}, the last, is {sigmas[-1]:g}; expected 0")
    return sigmas


Prompt = Annotated[str, AfterValidator(_not_blank)]
Sigmas = Annotated[tuple[float, ...], AfterValidator(_levels)]


class RequestFields(StrictModel):
    """What a request may say, nothing of it required: a job sets so what its rows do not say.

    ``None`` means that the checkpoint's generation, the pipeline or a file that the request names
    decides, until a request is resolved.
    """

    prompt: Prompt | None = Field(default=None, description="what the clip shows and sounds like")
    negative_prompt: str | None = Field(
        default=None, description="what it must not be; a general list by default"
    )
    enhance: bool = Field(
        default=False,
        description="whether the text encoder's language model rewrites the prompt first",
    )
    pipeline: str | None = Field(
        default=None, description="how it is sampled; by default what the request asks for decides"
    )
    width: int = Field(default=768, gt=0, le=8192, description="pixels")
    height: int = Field(default=512, gt=0, le=8192, description="pixels")
    num_frames: int = Field(default=121, gt=0, description="frames, 8k + 1")
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=86400,
        allow_inf_nan=False,
        description="length instead of num_frames, taken to the nearest 8k + 1 frames",
    )
    fps: float = Field(default=24.0, ge=1, le=240, description="frames per second")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="by default from the job's seed and the content"
    )
    steps: int | None = Field(default=None, ge=1, le=1000, description="model evaluations, stage 1")
    scheduler: str = Field(default="ltx2", description="noise levels of the guided stage")
    sigmas: Sigmas | None = Field(
        default=None, description="noise levels of stage 1 one by one, instead of steps, scheduler"
    )
    stage2_sigmas: Sigmas | None = Field(
        default=None, description="noise levels of stage 2; by default the distilled ones"
    )
    sampler: str | None = Field(
        default=None, description="how steps are taken; by default the pipeline's way"
    )
    video: bool = Field(default=True, description="whether the clip has a picture")
    audio: bool = Field(default=True, description="whether the clip has sound")
    images: tuple[ImageCondition, ...] = Field(default=(), description="pinned frames")
    references: tuple[VideoReference, ...] = Field(
        default=(), description="videos that an in-context adapter follows"
    )
    soundtrack: Soundtrack | None = Field(default=None, description="sound to make a picture for")
    retake: Retake | None = Field(default=None, description="stretch of a video to make anew")
    extend: Extension | None = Field(default=None, description="clip to make longer")
    chain: Chain = Field(default=Chain(), description="how a long clip is cut into chunks")
    loras: tuple[AdapterSpec, ...] = Field(
        default=(), description="adapters of this clip, after the model's own"
    )
    video_guidance: Guidance | None = Field(
        default=None, description="of the picture; fields not set follow the generation"
    )
    audio_guidance: Guidance | None = Field(default=None, description="of the sound, likewise")
    crf: int = Field(default=19, ge=0, le=51, description="H.264 quality of the file, 0 lossless")
    audio_format: Literal["wav", "m4a"] = Field(
        default="wav", description="file of a clip without a picture"
    )

    @model_validator(mode="after")
    def _makes_something(self) -> "RequestFields":
        if not (self.video or self.audio):
            raise ValueError("a clip without video and audio is empty; set one of them to true")
        return self


class RenderRequest(RequestFields):
    """One clip."""

    prompt: Prompt = Field(description="what the clip shows and sounds like")

    @property
    def duration_s(self) -> float:
        """Length of the clip in seconds."""
        return self.num_frames / self.fps
