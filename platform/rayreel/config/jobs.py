"""What a person writes to run a job."""

from typing import Literal

from pydantic import Field, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.request import RequestFields

StageName = Literal["text", "stage1", "stage2", "decode"]
DeviceName = Literal["auto", "cuda", "mps", "cpu"]
DtypeName = Literal["auto", "bfloat16", "float16", "float32"]


class AdapterSpec(StrictModel):
    """A LoRA file, fused into the transformer when it is loaded."""

    path: str = Field(description="safetensors file")
    strength: float = Field(
        default=1.0, allow_inf_nan=False, description="factor of the adapter; 0 leaves it out"
    )


class ModelSpec(StrictModel):
    """Weight files in the official layout; relative paths start at the spec's folder."""

    checkpoint: str = Field(description="transformer, VAEs, vocoder, text projection in one file")
    gemma: str = Field(description="folder of the Gemma 3 text encoder")
    upsampler: str | None = Field(default=None, description="latent spatial upsampler")
    distilled_lora: AdapterSpec | None = Field(
        default=None,
        description="makes the checkpoint a distilled one: stage 2 of two_stage, and distilled. "
        "Without it, distilled takes the checkpoint as distilled already",
    )
    loras: tuple[AdapterSpec, ...] = Field(default=(), description="further adapters, in order")


class StageSpec(StrictModel):
    """What one actor pool takes."""

    replicas: int = Field(default=1, ge=1, description="actors")
    batch_size: int = Field(default=1, ge=1, description="same-shape requests in one call, at most")
    device: DeviceName = Field(default="auto", description="auto: CUDA, then MPS, then CPU")
    dtype: DtypeName = Field(default="auto", description="auto: what suits the device")
    cpus: float | None = Field(
        default=None,
        gt=0,
        description="logical CPUs of an actor, and threads that it computes with; by default 1, or "
        "an even share of fewer. Another number of threads rounds differently",
    )
    gpus: float | None = Field(
        default=None, ge=0, description="GPUs of an actor; by default one where it computes on CUDA"
    )


class RenderSpec(StrictModel):
    """A prompt list becomes clips."""

    prompts: str = Field(description="JSONL, CSV or Parquet; a relative path starts at the spec")
    output: str = Field(default="runs/render", description="run directory: a folder or a URI")
    model: Literal["tiny"] | ModelSpec = Field(
        default="tiny", description="weight files, or the tiny model that ships with the package"
    )
    defaults: RequestFields = Field(
        default_factory=RequestFields, description="request fields for rows that do not set them"
    )
    seed: int = Field(default=0, ge=0, description="rows without a seed derive theirs from it")
    placement: Literal["fused", "split"] = Field(
        default="fused", description="all stages in one actor, or each in a pool of its own"
    )
    workers: StageSpec = Field(
        default_factory=StageSpec, description="the fused actors, or every stage's where split"
    )
    stages: dict[StageName, StageSpec] = Field(
        default_factory=dict,
        description="exceptions for single stages: device and dtype always, the rest where split",
    )

    @model_validator(mode="after")
    def _exceptions_have_an_effect(self) -> "RenderSpec":
        if self.placement == "fused":
            for name, own in self.stages.items():
                if lost := sorted(own.model_fields_set - {"device", "dtype"}):
                    raise ValueError(
                        f"stages.{name}.{lost[0]} has no effect with placement fused, where all "
                        f"stages share actors; set workers.{lost[0]}, or placement: split"
                    )
        return self

    def stage(self, name: StageName) -> StageSpec:
        """What holds for one stage: the fields that it sets, over ``workers``."""
        own = self.stages.get(name)
        return self.workers.model_copy(update=own.model_dump(exclude_unset=True) if own else {})
