"""A request: everything that changes the pixels and the sound of one clip, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from rayreel.config.base import StrictModel
from rayreel.config.sampling import Guidance

PipelineName = Literal["one_stage", "two_stage", "distilled"]

ModelFile = Literal[
    "transformer",
    "text_projection",
    "video_vae",
    "audio_vae",
    "vocoder",
    "gemma",
    "upsampler",
    "distilled_lora",
    "loras",
    "quantization",
]
"""Field of the model spec that changes results; a checkpoint counts as the components in it."""

# What every pipeline reads.
_BASE = tuple(f for f in get_args(ModelFile) if f not in {"upsampler", "distilled_lora"})

DEFAULT_NEGATIVE_PROMPT = (
    "blurry, out of focus, overexposed, underexposed, low contrast, washed out colors, noise, "
    "grain, flicker, ghosting, motion blur, compression artifacts, banding, deformed face, "
    "extra limbs, bad hands, uncanny skin, cartoon, 3d render, text, subtitles, watermark, logo, "
    "wrong perspective, camera shake, cluttered background, harsh light, jitter, abrupt cuts, "
    "frozen picture, lips out of sync, silence, distorted sound, echo, repeated dialogue"
)


@dataclass(frozen=True)
class PipelineTraits:
    """What a request must know of the pipeline that it names.

    Attributes:
        stages: Denoising stages; with two, the first one works at half size.
        guided: Whether the first stage takes steps and guidance.
        needs: Fields of the model spec that must be set beside the checkpoint and Gemma.
        uses: Further fields that take part where they are set.
    """

    stages: int
    guided: bool
    needs: tuple[ModelFile, ...] = ()
    uses: tuple[ModelFile, ...] = ()

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Fields of the model spec that change the result."""
        return (*_BASE, *self.needs, *self.uses)


PIPELINES: dict[PipelineName, PipelineTraits] = {
    "one_stage": PipelineTraits(stages=1, guided=True),
    "two_stage": PipelineTraits(stages=2, guided=True, needs=("upsampler", "distilled_lora")),
    "distilled": PipelineTraits(
        stages=2, guided=False, needs=("upsampler",), uses=("distilled_lora",)
    ),
}


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


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("blank; expected at least one word")
    return text


Prompt = Annotated[str, AfterValidator(_not_blank)]


class RequestFields(StrictModel):
    """What a request may say, nothing of it required: a job sets so what its rows do not say.

    ``None`` means "by the checkpoint's generation" until a request is resolved.
    """

    prompt: Prompt | None = Field(default=None, description="what the clip shows and sounds like")
    negative_prompt: str | None = Field(
        default=None, description="what it must not be; a general list by default"
    )
    pipeline: PipelineName = Field(default="two_stage", description="how it is sampled")
    width: int = Field(default=768, gt=0, le=8192, description="pixels")
    height: int = Field(default=512, gt=0, le=8192, description="pixels")
    num_frames: int = Field(default=121, gt=0, description="frames, 8k + 1")
    fps: float = Field(default=24.0, ge=1, le=240, description="frames per second")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="by default from the job's seed and the content"
    )
    steps: int | None = Field(default=None, ge=1, le=1000, description="model evaluations, stage 1")
    scheduler: Literal["ltx2", "linear_quadratic"] = Field(
        default="ltx2", description="noise levels of the guided stage"
    )
    audio: bool = Field(default=True, description="whether the clip has sound")
    images: tuple[ImageCondition, ...] = Field(default=(), description="pinned frames")
    video_guidance: Guidance | None = Field(
        default=None, description="of the picture; fields not set follow the generation"
    )
    audio_guidance: Guidance | None = Field(default=None, description="of the sound, likewise")
    crf: int = Field(default=19, ge=0, le=51, description="H.264 quality of the file, 0 lossless")


class RenderRequest(RequestFields):
    """One clip."""

    prompt: Prompt = Field(description="what the clip shows and sounds like")

    @property
    def traits(self) -> PipelineTraits:
        """Traits of the pipeline that the request names."""
        return PIPELINES[self.pipeline]

    @property
    def duration_s(self) -> float:
        """Length of the clip in seconds."""
        return self.num_frames / self.fps


def geometry_faults(
    request: RenderRequest, *, time_factor: int = 8, space_factor: int = 32, least_size: int = 1
) -> Iterator[tuple[str, str]]:
    """What of a request does not fit the video VAE, as pairs (field, message).

    Args:
        request: The request.
        time_factor: Pixel frames per latent frame.
        space_factor: Pixels per latent position.
        least_size: Pixels below which the VAE cannot decode.
    """
    if rest := (request.num_frames - 1) % time_factor:
        low, high = request.num_frames - rest, request.num_frames - rest + time_factor
        yield (
            "num_frames",
            f"{request.num_frames} does not fit the video VAE ({time_factor}k + 1 frames); "
            f"nearest are {low} and {high}",
        )
    multiple = space_factor * request.traits.stages
    for field in ("width", "height"):
        size = getattr(request, field)
        low = size // multiple * multiple
        legal = [near for near in (low, low + multiple) if near >= least_size]
        nearest = " and ".join(map(str, legal or [least_size]))
        if size % multiple:
            yield (
                field,
                f"{size} is not a multiple of {multiple}, which {request.pipeline} needs; "
                f"nearest: {nearest}",
            )
        elif size < least_size:
            yield field, f"{size} is too small for the video decoder; nearest is {nearest}"
    for index, image in enumerate(request.images):
        if image.frame >= request.num_frames:
            yield (
                f"images.{index}.frame",
                f"{image.frame} is past the last of {request.num_frames} frames; "
                f"nearest is {request.num_frames - 1}",
            )
