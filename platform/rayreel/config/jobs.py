"""What a person writes to run a job."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.conditions import AdapterSpec
from rayreel.config.model import AttentionBackend
from rayreel.config.request import RequestFields

StageName = Literal["text", "stage1", "stage2", "decode"]
DeviceName = Literal["auto", "cuda", "mps", "cpu"]
DtypeName = Literal["auto", "bfloat16", "float16", "float32"]


# An actor computes with as many threads as it has CPUs. Another number of threads sums in another
# order, so by default it must not depend on how many actors there are, or on the machine.
_CPUS = 1.0
# Ray rounds resources to four digits: shares that it rounds up would not fit side by side.
_SHARES_PER_CPU = 100

# What stages that share an actor may differ in.
_WITHIN_AN_ACTOR = {"device", "dtype"}


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
    "image_model",
]
"""Field of the model spec that changes results; a checkpoint counts as the components in it."""


class ImageModelSpec(StrictModel):
    """A Flux 2 pipeline in the layout of diffusers; it needs the extra ``rayreel[image]``."""

    folder: str = Field(
        description="local folder with model_index.json, as save_pretrained writes it; weights in "
        "safetensors alone"
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="model evaluations; by default 4 for distilled models (Klein), else 28",
    )
    guidance: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="how closely the picture follows the prompt; by default 4. Distilled models "
        "have none",
    )


class ModelSpec(StrictModel):
    """Weight files in the official layouts: one file for all, or one for each component."""

    folder: str | None = Field(
        default=None, description="where relative paths start; by default the spec's folder"
    )
    checkpoint: str | None = Field(
        default=None,
        description="transformer, VAEs, vocoder, text projection in one file; a sharded file is "
        "named by its *.safetensors.index.json, here and below",
    )
    transformer: str | None = Field(
        default=None, description="transformer and connectors, where not in the checkpoint"
    )
    text_projection: str | None = Field(
        default=None,
        description="projection of the text features, where neither the transformer's file nor the "
        "text encoder's has it",
    )
    video_vae: str | None = Field(default=None, description="where not in the checkpoint")
    audio_vae: str | None = Field(
        default=None, description="audio VAE and vocoder, where not in the checkpoint"
    )
    vocoder: str | None = Field(default=None, description="where not in the audio VAE's file")
    gemma: str = Field(
        description="text encoder: folder of Gemma 3 (2.0, 2.3), or packed file of Gemma 4 (2.5)"
    )
    upsampler: str | None = Field(default=None, description="latent spatial upsampler")
    distilled_lora: AdapterSpec | None = Field(
        default=None,
        description="makes the checkpoint a distilled one: stage 2 of two_stage, and distilled. "
        "Without it, distilled takes the checkpoint as distilled already",
    )
    loras: tuple[AdapterSpec, ...] = Field(default=(), description="further adapters, in order")
    quantization: Literal["auto", "none", "fp8_cast"] = Field(
        default="auto",
        description="of the transformer's weights: auto as the file has them; fp8_cast keeps those "
        "of the blocks' linear layers in float8 and computes in the stage's dtype; none widens "
        "float8 ones when they are loaded",
    )
    image_model: ImageModelSpec | None = Field(
        default=None, description="makes the pictures of requests of a single frame"
    )

    @model_validator(mode="after")
    def _somewhere_is_a_transformer(self) -> "ModelSpec":
        if self.checkpoint is None and self.transformer is None:
            raise ValueError("names no transformer; set checkpoint, or transformer and video_vae")
        return self


ModelChoice = Literal["tiny"] | ModelSpec
"""A model that comes with the package, by its name, or weight files."""

Hold = Literal["resident", "per_call", "offload", "disk"]


class MemorySpec(StrictModel):
    """How long a worker holds each component on its device.

    ``resident`` keeps it there; ``per_call`` loads it for each batch and drops it; ``offload``
    keeps it in the host's memory between calls, and brings the transformer and the text encoder to
    the device block by block; ``disk`` does the same from the mapped files, holding nothing. A
    transformer that is needed with several sets of adapters is there once for each of them, or with
    ``exchange`` once, its changed weights made anew whenever another set is wanted.
    """

    text_encoder: Hold = "resident"
    text_connectors: Hold = Field(
        default="resident",
        description="what brings encoded texts to the transformer, in whose stages they are",
    )
    transformer: Hold | Literal["exchange"] = "resident"
    video_encoder: Hold = "resident"
    upsampler: Hold = "resident"
    video_decoder: Hold = "resident"
    audio_decoder: Hold = Field(default="resident", description="audio VAE and vocoder")
    enhancer: Hold = Field(
        default="per_call",
        description="the language model as a writer of prompts; text_encoder has its own",
    )
    adapter_sets: int = Field(
        default=1,
        ge=1,
        description="sets of adapters of requests that a worker keeps transformers with at a time; "
        "whichever was not needed for longest goes first. With exchange there is one transformer "
        "in any case",
    )


class StageSpec(StrictModel):
    """What one actor pool takes."""

    replicas: int = Field(default=1, ge=1, description="actors, at least")
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        description="actors, at most: the pool grows while work waits, and shrinks when it is "
        "idle; by default it stays as it is",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="like requests, or texts, in one call, at most; auto: what memory has room "
        "for, up to 8, or the fastest that was measured for the shape",
    )
    device: DeviceName = Field(default="auto", description="auto: CUDA, then MPS, then CPU")
    dtype: DtypeName = Field(default="auto", description="auto: what suits the device")
    attention: AttentionBackend = Field(
        default="auto", description="kernels of attention; auto: the fastest that can serve a call"
    )
    cpus: float | None = Field(
        default=None,
        gt=0,
        description="logical CPUs of an actor, and threads that it computes with; by default 1, or "
        "an even share of fewer. Another number of threads rounds differently",
    )
    gpus: float | None = Field(
        default=None, ge=0, description="GPUs of an actor; by default one where it computes on CUDA"
    )
    node: str | None = Field(
        default=None,
        description="custom resource of Ray that only the nodes have which may hold the actors",
    )

    @property
    def least_batch(self) -> int:
        """How many share a call in any case."""
        return 1 if self.batch_size == "auto" else self.batch_size

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas={self.max_replicas} is less than replicas={self.replicas}; "
                f"expected {self.replicas} or more"
            )
        return self


def cpu_share(choices: Sequence[StageSpec], cpus: float) -> float:
    """CPUs of an actor whose spec says nothing; never none, so that it can be refused.

    Args:
        choices: Of all pools.
        cpus: That they have together.
    """
    held = sum(choice.replicas * choice.cpus for choice in choices if choice.cpus)
    others = sum(choice.replicas for choice in choices if not choice.cpus)
    shares = _SHARES_PER_CPU * (cpus - held) // max(1, others)
    return min(_CPUS, max(1, shares) / _SHARES_PER_CPU)


class ModelSetup(StrictModel):
    """A model and how it is run: what a model spec holds, and what every job says of its model."""

    model: ModelChoice = Field(
        default="tiny",
        description="weight files, a folder of them, another model spec, or the tiny model that "
        "ships with the package",
    )
    defaults: RequestFields = Field(
        default_factory=RequestFields, description="request fields for rows that do not set them"
    )
    memory: MemorySpec = Field(
        default_factory=MemorySpec, description="what stays on a worker's device, by component"
    )
    placement: Literal["fused", "split", "auto"] = Field(
        default="fused",
        description="stages after the text in one actor, or each in a pool of its own; auto: "
        "whichever is planned to be faster, with as many actors as pay",
    )
    workers: StageSpec = Field(
        default_factory=StageSpec, description="the fused actors, or every stage's where split"
    )
    stages: dict[StageName, StageSpec] = Field(
        default_factory=dict,
        description="exceptions for single stages: device and dtype always, the rest where split",
    )

    @model_validator(mode="after")
    def _exceptions_have_an_effect(self) -> Self:
        if self.placement == "fused":
            for name, own in self.stages.items():
                if lost := sorted(own.model_fields_set - _WITHIN_AN_ACTOR):
                    raise ValueError(
                        f"stages.{name}.{lost[0]} has no effect with placement fused, where all "
                        f"stages share actors; set workers.{lost[0]}, or placement: split"
                    )
        return self

    def stage(self, name: StageName) -> StageSpec:
        """What holds for one stage: the fields that it sets, over ``workers``."""
        own = self.stages.get(name)
        return self.workers.model_copy(update=own.model_dump(exclude_unset=True) if own else {})


class RenderSpec(ModelSetup):
    """A prompt list becomes clips."""

    prompts: str = Field(description="JSONL, CSV or Parquet; a relative path starts at the spec")
    output: str = Field(default="runs/render", description="run directory: a folder or a URI")
    seed: int = Field(default=0, ge=0, description="rows without a seed derive theirs from it")
    keep_latents: bool = Field(
        default=False,
        description="whether latents are kept beside the clips, for exact extensions; those of "
        "long clips always are",
    )
    store: str | None = Field(
        default=None,
        description="folder or URI of encoded and written prompts and of measured costs, which "
        "jobs may share; by default the output",
    )
    traces: str | None = Field(
        default=None,
        description="where OpenTelemetry spans of every clip go: a collector's http address, or a "
        "local folder; by default what OTEL_EXPORTER_OTLP_ENDPOINT says, or nowhere",
    )
    wave: int = Field(
        default=4096,
        ge=1,
        description="clips that are prepared together: a clip waits for like ones among so many",
    )
    attempts: int = Field(
        default=3,
        ge=1,
        description="tries of a clip whose worker was lost or ran out of memory; other failures "
        "are final",
    )
    error_budget: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of clips that may fail, of those finished so far and at least of the "
        "first 100; one more stops the run",
    )
