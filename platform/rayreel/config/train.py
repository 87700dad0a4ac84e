"""What a person writes to fine-tune a model."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.jobs import DeviceName, DtypeName, ModelChoice
from rayreel.config.request import RequestFields
from rayreel.config.sampling import Guidance
from rayreel.config.strategies import AnyStrategy, TextToVideo

TargetPreset = Literal["all", "video", "audio", "cross_modal", "attention"]
"""Layers that adapters attach to, by name."""

ScheduleName = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "step"]


Decay = Annotated[float, Field(ge=0, lt=1)]


class LoraSpec(StrictModel):
    """A low-rank adapter beside linear layers."""

    rank: int = Field(default=32, ge=2, description="of the factors")
    alpha: int | None = Field(
        default=None,
        ge=1,
        description="the adapter counts alpha / rank times; by default the rank. It is folded into "
        "the saved factors",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of inputs left out")
    targets: TargetPreset | tuple[str, ...] = Field(
        default="attention",
        description="attention: all of both streams; all: feed-forward layers too; video, audio: "
        "of one stream; cross_modal: between the streams. Or ends of layers' names, such as "
        "[attn1.to_q, ff.net.0.proj]",
    )


class TimestepSpec(StrictModel):
    """How noise levels are drawn."""

    sampler: Literal["shifted_logit_normal", "uniform", "levels"] = "shifted_logit_normal"
    stretched: bool = Field(
        default=True,
        description="logit-normal as from 2.3 on, stretched to [0, 1]; or as of 2.0",
    )
    tokens: int | None = Field(
        default=None,
        ge=1,
        description="length that noise is favoured for, by default that of the sample; most "
        "pipelines favour it as for 4096, whatever they make",
    )
    std: float = Field(default=1.0, gt=0, description="of the normal draw")
    uniform_share: float = Field(
        default=0.1, ge=0, le=1, description="of a stretched one, draws that are uniform instead"
    )
    eps: float = Field(default=1e-3, gt=0, lt=0.5, description="least level of a stretched one")
    min: float = Field(default=0.0, ge=0, lt=1, description="least uniform level")
    max: float = Field(default=1.0, gt=0, le=1, description="greatest uniform level")
    levels: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(),
        description="of sampler levels: one of these each time, such as those that a distilled "
        "model takes",
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min={self.min:g} must be less than max={self.max:g}")
        return self

    @model_validator(mode="after")
    def _says_what_counts(self) -> Self:
        if self.sampler == "levels" and not self.levels:
            raise ValueError("sampler levels needs levels, such as [1.0, 0.725, 0.421875]")
        counts = {"sampler", "levels"} if self.sampler == "levels" else {"sampler", "min", "max"}
        if self.sampler == "shifted_logit_normal":
            counts = {"sampler", "stretched", "tokens", "std"}
            counts |= {"uniform_share", "eps"} if self.stretched else set()
        usual = {name: field.default for name, field in type(self).model_fields.items()}
        if idle := {name for name, value in self if value != usual[name]} - counts:
            kind = f"sampler {self.sampler}" + ("" if self.stretched else ", not stretched,")
            raise ValueError(
                f"{', '.join(sorted(idle))} without effect: {kind} has "
                f"{', '.join(sorted(counts - {'sampler'}))}"
            )
        return self


class OptimizationSpec(StrictModel):
    """How weights follow the gradients."""

    steps: int = Field(default=2000, ge=1, description="optimiser steps, of the whole run")
    batch_size: int = Field(
        default=1, ge=1, description="samples of one optimiser step, over all workers"
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="samples of one pass through the model, at most; by default a worker's share",
    )
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    optimizer: Literal["adamw", "adamw8bit", "muon"] = Field(
        default="adamw",
        description="adamw8bit needs the extra rayreel[lowbit]; muon learns from scratch in fewer "
        "steps, and needs weights that are not split over workers",
    )
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0, description="gradients are cut to; 0: never")
    warmup: int = Field(default=0, ge=0, description="first steps, in which the rate rises to full")
    schedule: ScheduleName = Field(default="linear", description="of the rate after them")
    schedule_params: dict[str, float] = Field(
        default_factory=dict, description="what the schedule has at another value than usual"
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which then is what is saved, such "
        "as 0.999; by default none",
    )

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup={self.warmup} leaves none of steps={self.steps}; expected at most "
                f"{self.steps - 1}"
            )
        return self


class AccelerationSpec(StrictModel):
    """How training fits into memory, and how fast it is."""

    device: DeviceName = Field(default="auto", description="auto: CUDA, then CPU")
    dtype: DtypeName = Field(
        default="auto", description="that is computed in; weights that learn are float32"
    )
    sharding: Literal["full", "replicate"] = Field(
        default="full",
        description="over several workers: full splits weights, gradients and optimiser (FSDP2); "
        "replicate keeps a copy on each, and adds up gradients once per step",
    )
    checkpoint_activations: bool = Field(
        default=False, description="whether blocks are computed once more instead of remembered"
    )
    offload: bool = Field(
        default=False, description="whether weights and optimiser are kept in the host's memory"
    )
    quantization: Literal["none", "fp8", "int8"] = Field(
        default="none",
        description="of weights that do not learn; int8 needs the extra rayreel[lowbit]",
    )


class WorkersSpec(StrictModel):
    """Processes that train together."""

    num_workers: int | tuple[int, int] = Field(
        default=0,
        description="processes, or the least and the most of them; 0 trains in this process",
    )
    cpus: float = Field(default=1.0, gt=0, description="of each")
    gpus: float | None = Field(
        default=None, ge=0, description="of each; by default 1 where they compute on GPUs"
    )
    max_failures: int = Field(
        default=8, ge=0, description="lost workers after which a run ends, to be started again"
    )

    @model_validator(mode="after")
    def _is_a_number(self) -> Self:
        least, most = self.bounds
        if not 0 <= least <= most or (least == 0 and most):
            raise ValueError(
                f"num_workers={self.num_workers} is no number of processes; expected one from 0, "
                "or two such as [1, 4]"
            )
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most."""
        number = self.num_workers
        return (number, number) if isinstance(number, int) else number


class TrainDataSpec(StrictModel):
    """How samples are read."""

    loaders: int = Field(default=2, ge=1, description="threads of each worker that read ahead")
    ahead: int = Field(default=4, ge=1, description="passes that are read ahead")


class TrainCheckpointSpec(StrictModel):
    """What a run can go on from, and what it leaves."""

    interval: int | None = Field(
        default=250, ge=1, description="steps between checkpoints; none: only at the end"
    )
    keep_last: int = Field(
        default=2, ge=0, description="checkpoints and weights that are kept; 0 keeps all"
    )
    precision: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="of saved weights; checkpoints are exact"
    )


def _rows(value: Any) -> Any:  # noqa: ANN401 - what a person has written
    """Prompts may stand for rows of nothing else."""
    if isinstance(value, list | tuple):
        return tuple({"prompt": row} if isinstance(row, str) else row for row in value)
    return value


class ValidationSpec(StrictModel):
    """Clips that show what the weights have learned so far."""

    rows: Annotated[tuple[RequestFields, ...], BeforeValidator(_rows)] = Field(
        default=(),
        description="prompts, or rows as of a prompt list: every pipeline and condition",
    )
    defaults: RequestFields = Field(
        default_factory=RequestFields, description="of what rows do not say"
    )
    folder: str | None = Field(
        default=None,
        description="where relative paths in rows start; by default the spec's folder",
    )
    interval: int | None = Field(
        default=250, ge=1, description="steps between them; none: only at the end"
    )
    initial: bool = Field(default=True, description="whether before the first step too")
    where: Literal["auto", "task", "worker"] = Field(
        default="auto",
        description="task: beside training, on resources of its own; worker: on the first worker, "
        "while the others wait; auto: a task where there is room",
    )
    timeout_s: float = Field(default=3600, gt=0, description="for the clips of one step")


class WandbSpec(StrictModel):
    """Weights & Biases; needs the extra ``rayreel[wandb]``, and its key in ``WANDB_API_KEY``."""

    project: str = "rayreel"
    entity: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline"] = "online"
    clips: bool = Field(default=True, description="whether validation clips are sent too")


class MlflowSpec(StrictModel):
    """MLflow; needs the extra ``rayreel[mlflow]``."""

    uri: str | None = Field(
        default=None, description="of the tracking server; by default MLFLOW_TRACKING_URI"
    )
    experiment: str = "rayreel"


class TrackingSpec(StrictModel):
    """Where numbers go, beside the run directory and TensorBoard's files in it."""

    wandb: WandbSpec | None = None
    mlflow: MlflowSpec | None = None


class DistillationSpec(StrictModel):
    """The model teaches the adapter to do in one step what takes it several guided ones."""

    substeps: int = Field(
        default=4, ge=1, description="of the teacher, from one of timesteps.levels to the next"
    )
    video_guidance: Guidance | None = Field(
        default=None, description="of the teacher; fields not set follow the generation"
    )
    audio_guidance: Guidance | None = Field(default=None, description="the same of sound")
    negative_prompt: str | None = Field(
        default=None, description="that the teacher is guided away from; by default the usual one"
    )


class TrainSpec(StrictModel):
    """A dataset becomes an adapter, or a model."""

    dataset: str = Field(description="folder or URI that an encode job has written")
    output: str = Field(default="runs/train", description="run directory: a folder or a URI")
    model: ModelChoice = Field(
        default="tiny",
        description="weight files, a folder of them, a model spec, or the tiny model",
    )
    mode: Literal["lora", "full"] = Field(
        default="lora", description="whether an adapter learns, or all weights of the transformer"
    )
    lora: LoraSpec = Field(default_factory=LoraSpec)
    start: str | None = Field(
        default=None,
        description="weights that an earlier run has saved, to start from: an adapter or a "
        "checkpoint, as it is the mode",
    )
    strategy: AnyStrategy = Field(default_factory=TextToVideo)
    timesteps: TimestepSpec = Field(default_factory=TimestepSpec)
    distillation: DistillationSpec | None = Field(
        default=None,
        description="the adapter learns from the model itself, guided, instead of from the data",
    )
    data: TrainDataSpec = Field(default_factory=TrainDataSpec)
    optimization: OptimizationSpec = Field(default_factory=OptimizationSpec)
    acceleration: AccelerationSpec = Field(default_factory=AccelerationSpec)
    workers: WorkersSpec = Field(default_factory=WorkersSpec)
    checkpoints: TrainCheckpointSpec = Field(default_factory=TrainCheckpointSpec)
    validation: ValidationSpec = Field(default_factory=ValidationSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    seed: int = Field(default=0, ge=0, description="of weights, order, noise and draws")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        fast, workers = self.acceleration, self.workers
        if self.mode == "full" and self.lora != LoraSpec():
            raise ValueError("mode full trains no adapter; remove lora, or set mode: lora")
        if self.mode == "full" and fast.quantization != "none":
            raise ValueError(
                f"mode full learns all weights, so none can be {fast.quantization}; "
                "set acceleration.quantization: none, or mode: lora"
            )
        if self.mode == "full" and self.strategy.name == "ic_lora":
            raise ValueError("strategy ic_lora trains an adapter; set mode: lora")
        if fast.quantization == "int8" and workers.bounds[1] > 1 and fast.sharding == "full":
            raise ValueError(
                "acceleration.quantization int8 cannot be split over workers; set "
                "acceleration.sharding: replicate, or quantization: fp8"
            )
        split = workers.bounds[1] > 1 and fast.sharding == "full"
        if self.optimization.optimizer == "muon" and (split or fast.offload):
            raise ValueError(
                "optimization.optimizer muon needs whole matrices on the device; set "
                "acceleration.sharding: replicate and offload: false, or optimizer: adamw"
            )
        if fast.offload and fast.sharding == "replicate":
            raise ValueError("acceleration.offload needs acceleration.sharding: full")
        return self

    @model_validator(mode="after")
    def _can_be_taught(self) -> Self:
        if self.distillation is None:
            return self
        streams = self.strategy.streams()
        both = streams.video is not None and streams.audio is not None
        wanted = {
            "mode: lora, as the model without the adapter is the teacher": self.mode == "lora",
            "timesteps.sampler: levels, those of the steps to learn": bool(self.timesteps.levels),
            "a strategy without references along the clip": not streams.in_context,
            "one noise level for both streams: strategy.shared_sigma": (
                streams.shared_sigma or not both
            ),
            "acceleration.sharding: replicate, as workers take different numbers of passes": (
                self.workers.bounds[1] <= 1 or self.acceleration.sharding == "replicate"
            ),
        }
        for what, fulfilled in wanted.items():
            if not fulfilled:
                raise ValueError(f"distillation needs {what}")
        return self
