"""What a person writes to have a dataset encoded."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.buckets import Bucket, split_buckets
from rayreel.config.jobs import MemorySpec, ModelChoice, StageSpec

EncodeStageName = Literal["scan", "caption", "text", "latents", "shards"]
"""Passes of an encode job, in their order."""

Part = Literal["video", "audio", "reference", "masks", "text"]
"""What can be encoded of a clip."""


class ColumnSpec(StrictModel):
    """Names of columns in the list, where they are others than usual."""

    video: str = Field(default="video", description="videos or images; media_path is read too")
    audio: str = Field(default="audio", description="sound in files of its own")
    reference_video: str = Field(
        default="reference_video",
        description="what an in-context adapter is shown; also ref_media_path",
    )
    reference_audio: str = Field(default="reference_audio", description="the same, of sound")
    video_mask: str = Field(default="video_mask", description="white is kept as a condition")
    audio_mask: str = Field(default="audio_mask", description="loud is kept as a condition")
    caption: str = Field(default="caption", description="what the clip shows")
    name: str = Field(default="id", description="what reports call the row; by default its number")


class RangeSpec(StrictModel):
    """What a measure may be; a clip outside is dropped, and the report says so."""

    min: float | None = Field(default=None, allow_inf_nan=False, description="least value")
    max: float | None = Field(default=None, allow_inf_nan=False, description="greatest value")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min:g} is more than max={self.max:g}")
        return self

    def __str__(self) -> str:
        """For people."""
        if self.min is None:
            return f"at most {self.max:g}"
        return f"at least {self.min:g}" if self.max is None else f"{self.min:g} to {self.max:g}"


class SceneSpec(StrictModel):
    """How videos are cut into scenes; each becomes a sample of its own."""

    detector: Literal["content", "adaptive", "threshold", "histogram"] = Field(
        default="content",
        description="content: cuts, by hue, saturation and brightness; adaptive: the same against "
        "a moving average; threshold: fades to black; histogram: by brightness alone",
    )
    threshold: float | None = Field(default=None, description="by default the detector's own")
    min_frames: int = Field(default=15, ge=1, description="a shorter scene joins its neighbour")
    max_scenes: int | None = Field(default=None, ge=1, description="the first ones of each video")


class OpenAICaptioner(StrictModel):
    """Captions from a server that speaks OpenAI's chat protocol, such as vLLM.

    The key is read from ``OPENAI_API_KEY`` where the job runs.
    """

    type: Literal["openai"] = "openai"
    url: str = Field(description="such as http://localhost:8001/v1")
    model: str = Field(description="name of the model on the server")
    audio: bool = Field(default=False, description="whether the model is sent the sound too")
    timeout_s: float = Field(default=120, gt=0, description="for one answer")
    max_retries: int = Field(default=4, ge=0, description="of one request that may go otherwise")


class LocalCaptioner(StrictModel):
    """Captions from an image-text-to-text model of ``transformers``, in the job's own workers."""

    type: Literal["transformers"] = "transformers"
    folder: str = Field(description="local folder as save_pretrained writes it; safetensors alone")


class CaptionSpec(StrictModel):
    """How captions are written and cleaned."""

    clean: bool = Field(
        default=True, description="whether white space and openings are cleaned as below"
    )
    prefixes: tuple[str, ...] | None = Field(
        default=None,
        description="openings that are removed, whatever their case and as often as they come, "
        "such as 'In this video,'; by default those that language models like to write",
    )
    trigger: str = Field(
        default="", description="trigger word or ID token, put in front of every caption"
    )
    captioner: Annotated[OpenAICaptioner | LocalCaptioner, Field(discriminator="type")] | None = (
        Field(default=None, description="writes the captions that the list does not have")
    )
    instruction: str | None = Field(
        default=None,
        description="what the captioner is told; by default to describe picture, "
        "motion and sound in one paragraph",
    )
    fps: float = Field(default=2, gt=0, description="frames per second that a captioner sees")
    max_frames: int = Field(default=32, ge=1, description="that a captioner sees, at most")
    max_tokens: int = Field(default=512, ge=1, description="of an answer")


class ReferenceSpec(StrictModel):
    """How references are made smaller than their targets."""

    downscale: int = Field(default=1, ge=1, description="divisor of width and height")
    stride: int = Field(
        default=1, ge=1, description="after the first frame, one of so many is taken"
    )


class EncodeSpec(StrictModel):
    """A list of clips becomes latents and embeddings."""

    dataset: str = Field(
        description="CSV, JSON, JSONL or Parquet; media paths in it start at its folder"
    )
    output: str = Field(default="datasets/encoded", description="a folder or a URI")
    model: ModelChoice = Field(
        default="tiny",
        description="weight files, a folder of them, a model spec, or the tiny model",
    )
    memory: MemorySpec = Field(
        default_factory=MemorySpec, description="what stays on a worker's device, by component"
    )
    columns: ColumnSpec = Field(default_factory=ColumnSpec)
    skip: tuple[Part, ...] = Field(default=(), description="what is not encoded")
    buckets: Annotated[tuple[Bucket, ...], BeforeValidator(split_buckets)] = Field(
        default=(), description="sizes that clips are brought to, as WxHxF; needed for videos"
    )
    enlarge: bool = Field(
        default=True,
        description="whether a clip may go to a bucket that is larger than itself; if not, one "
        "that is smaller than all of them is dropped",
    )
    crop: Literal["center", "random"] = Field(
        default="center", description="which part of a picture that is too wide or high is kept"
    )
    seed: int = Field(default=0, ge=0, description="of random crops")
    audio_durations: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        default=(),
        description="seconds that sound without a picture is cut to, the longest that fits; by "
        "default it is kept whole",
    )
    tiled: bool = Field(
        default=False, description="whether large pictures are encoded in overlapping tiles"
    )
    reference: ReferenceSpec = Field(default_factory=ReferenceSpec)
    scenes: SceneSpec | None = Field(
        default=None, description="how videos are cut into scenes; by default not at all"
    )
    filters: dict[str, RangeSpec] = Field(
        default_factory=dict, description="what measures may be, by their names"
    )
    duplicate_distance: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="clips whose perceptual hashes differ in at most so many of 256 bits from "
        "those of a clip before are dropped; by default none",
    )
    captions: CaptionSpec = Field(default_factory=CaptionSpec)
    shard_samples: int = Field(default=256, ge=1, description="samples in a shard, at most")
    store: str | None = Field(
        default=None,
        description="folder or URI of what was encoded, which jobs may share; by default the "
        "output",
    )
    workers: StageSpec = Field(default_factory=StageSpec, description="of every pass")
    stages: dict[EncodeStageName, StageSpec] = Field(
        default_factory=dict, description="exceptions for single passes"
    )
    traces: str | None = Field(
        default=None, description="where OpenTelemetry spans go; see the render spec"
    )
    wave: int = Field(default=1024, ge=1, description="rows that are prepared together")
    attempts: int = Field(
        default=3, ge=1, description="tries of what was lost with its worker, or the like"
    )
    error_budget: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of samples that may fail; one more stops the run",
    )

    def stage(self, name: EncodeStageName) -> StageSpec:
        """What holds for one pass: the fields that it sets, over ``workers``."""
        own = self.stages.get(name)
        return self.workers.model_copy(update=own.model_dump(exclude_unset=True) if own else {})
