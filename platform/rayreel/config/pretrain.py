"""What a person writes to have one network learn from scratch."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.train import OptimizationSpec

PartName = Literal["text", "video_vae", "audio_vae", "vocoder", "upsampler"]
"""Networks that learn by themselves, before a transformer learns from what they make."""

# The weights that a network builds on, of those that build on any.
_INPUTS: dict[PartName, PartName] = {"upsampler": "video_vae", "vocoder": "audio_vae"}


class StretchSpec(StrictModel):
    """A stretch of the steps, in which all batches are of one shape."""

    steps: int = Field(ge=1, description="how many")
    batch_size: int = Field(default=1, ge=1, description="clips, or captions, of a step")
    size: int = Field(default=128, ge=32, description="pixels of a side that are looked at")
    num_frames: int = Field(default=25, ge=1, description="frames that are looked at, 8k + 1")

    @field_validator("num_frames")
    @classmethod
    def _fits(cls, value: int) -> int:
        if value % 8 != 1:
            raise ValueError(f"expected 8k + 1, such as {value // 8 * 8 + 1}")
        return value


_BEGIN_LINEAR: tuple[PartName, ...] = ("video_vae", "upsampler")


class PretrainSpec(StrictModel):
    """One network that learns from clips of the drawn world, which are made as it goes."""

    part: PartName = Field(description="which network")
    architecture: str = Field(description="YAML file with the sections of a checkpoint's config")
    output: str = Field(default="runs/pretrain", description="run directory: a folder or a URI")
    inputs: dict[str, str] = Field(
        default_factory=dict, description="weights of networks that it builds on, by part"
    )
    stretches: tuple[StretchSpec, ...] = Field(
        default=(),
        description="one after the other; without any, a video VAE, or an upsampler without "
        "residual blocks, stays the linear map that it begins as",
    )
    optimization: OptimizationSpec = Field(
        default_factory=OptimizationSpec,
        description="its steps and batches are those of the stretches",
    )
    checkpoint_interval: int = Field(default=500, ge=1, description="steps between checkpoints")
    seed: int = Field(default=0, ge=0, description="of weights, clips and noise")

    @model_validator(mode="after")
    def _has_what_it_builds_on(self) -> Self:
        if self.part not in _BEGIN_LINEAR and not self.stretches:
            raise ValueError(f"part {self.part} learns step by step; expected stretches")
        if not self.stretches and self.optimization != OptimizationSpec():
            raise ValueError("optimization has no effect without stretches; leave it out")
        if self.part == "upsampler" and "video_vae" not in self.inputs:
            raise ValueError("an upsampler needs inputs.video_vae, the weight file of a video VAE")
        if unread := self.inputs.keys() - {_INPUTS.get(self.part)}:
            raise ValueError(f"inputs.{min(unread)} is not read by part {self.part}; leave it out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _as_long_as_its_stretches(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was written
        match value:
            case {"stretches": [*stretches], "optimization": dict(given)} if extra := sorted(
                {"steps", "batch_size", "micro_batch"} & given.keys()
            ):
                raise ValueError(f"optimization.{extra[0]} is that of the stretches; leave it out")
            case {"stretches": [_, *_] as stretches}:
                steps = sum(one.get("steps", 0) for one in stretches if isinstance(one, dict))
                optimization = {**value.get("optimization", {}), "steps": steps}
                return {**value, "optimization": optimization}
        return value

    @property
    def steps(self) -> int:
        """Steps of all stretches."""
        return sum(stretch.steps for stretch in self.stretches)

    def stretch(self, step: int) -> StretchSpec:
        """The stretch that a step is of, from 0."""
        for stretch in self.stretches:
            if step < stretch.steps:
                return stretch
            step -= stretch.steps
        raise IndexError(step)
