"""The YAML of the LTX-2 trainer, of every release: its fields, its defaults and its rules."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from rayreel.config.base import StrictModel

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
"""Layers that adapters attach to unless a file says others: all attention of both streams."""

# What newer releases split by stream, and what it has become: one file may not say both.
_SPLIT = {
    "guidance_scale": ("video_cfg_scale", "audio_cfg_scale"),
    "stg_scale": ("video_stg_scale", "audio_stg_scale"),
    "stg_mode": ("video_stg_scale", "audio_stg_scale"),
}


def _is_local(path: str) -> str:
    if "://" in path:
        raise ValueError("is a URL; expected a local path")
    return path


def _named(value: Any) -> Any:  # noqa: ANN401 - what a person has written
    """A strategy without a name is that of text."""
    return {"name": "text_to_video", **value} if isinstance(value, dict) else value


LocalPath = Annotated[str, AfterValidator(_is_local)]
Probability = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Region = tuple[int, int, int, int]


class OfficialModel(StrictModel):
    """Its ``model``."""

    model_path: LocalPath
    text_encoder_path: LocalPath | None = None
    video_vae_path: LocalPath | None = None
    audio_vae_path: LocalPath | None = None
    training_mode: Literal["lora", "full"] = "lora"
    load_checkpoint: str | None = None


class OfficialLora(StrictModel):
    """Its ``lora``."""

    rank: int = Field(default=64, ge=2)
    alpha: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.0, ge=0, le=1)
    target_modules: tuple[str, ...] = ATTENTION


class OfficialTextToVideo(StrictModel):
    """A strategy of the first releases."""

    name: Literal["text_to_video"]
    first_frame_conditioning_p: Probability = 0.1
    with_audio: bool = False
    audio_latents_dir: str = "audio_latents"


class OfficialVideoToVideo(StrictModel):
    """The in-context one of the first releases."""

    name: Literal["video_to_video"]
    first_frame_conditioning_p: Probability = 0.1
    reference_latents_dir: str = "reference_latents"


# What a condition has beside its probability.
_TRAINED_WITH = {
    "first_frame": (),
    "prefix": ("temporal_boundary",),
    "suffix": ("temporal_boundary",),
    "spatial_crop": ("spatial_region",),
    "mask": ("mask_dir",),
    "reference": ("latents_dir",),
}


class OfficialCondition(StrictModel):
    """What of a stream is shown in training."""

    type: Literal["first_frame", "prefix", "suffix", "spatial_crop", "mask", "reference"]
    probability: Probability = 1.0
    temporal_boundary: int | None = Field(default=None, ge=1)
    spatial_region: Region | None = None
    mask_dir: str | None = None
    latents_dir: str | None = None

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        needed = _TRAINED_WITH[self.type]
        given = {name for name, value in self if value is not None} - {"type", "probability"}
        if given != {*needed}:
            said = f"expected {' and '.join(needed) or 'none'} beside type and probability"
            raise ValueError(f"{self.type}: {said}, got {', '.join(sorted(given)) or 'none'}")
        return self


class OfficialStream(StrictModel):
    """A stream of the flexible strategy."""

    is_generated: bool
    latents_dir: str
    conditions: tuple[OfficialCondition, ...] = ()


class OfficialFlexible(StrictModel):
    """The strategy of newer releases."""

    name: Literal["flexible"]
    video: OfficialStream | None = None
    audio: OfficialStream | None = None

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not any(one and one.is_generated for one in (self.video, self.audio)):
            raise ValueError("generates neither video nor audio; expected one of them at least")
        for one in self.audio.conditions if self.audio else ():
            if one.type in {"first_frame", "spatial_crop"}:
                raise ValueError(f"audio has no {one.type}")
        return self


OfficialStrategy = Annotated[
    OfficialTextToVideo | OfficialVideoToVideo | OfficialFlexible, Field(discriminator="name")
]


class OfficialOptimization(StrictModel):
    """Its ``optimization``."""

    learning_rate: float = Field(default=5e-4, gt=0, allow_inf_nan=False)
    steps: int = Field(default=3000, ge=1)
    batch_size: int = Field(default=2, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    max_grad_norm: float = 1.0
    optimizer_type: Literal["adamw", "adamw8bit"] = "adamw"
    scheduler_type: Literal[
        "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "step"
    ] = "linear"
    scheduler_params: dict[str, float] = Field(default_factory=dict)
    enable_gradient_checkpointing: bool = False


class OfficialAcceleration(StrictModel):
    """Its ``acceleration``."""

    mixed_precision_mode: Literal["no", "fp16", "bf16"] | None = "bf16"
    quantization: (
        Literal["int8-quanto", "int4-quanto", "int2-quanto", "fp8-quanto", "fp8uz-quanto"] | None
    ) = None
    load_text_encoder_in_8bit: bool = False
    offload_optimizer_during_validation: bool = False

    @field_validator("mixed_precision_mode", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: Any) -> Any:  # noqa: ANN401 - what a person has written
        """In YAML a bare ``no`` is false."""
        return "no" if value is False else value


class OfficialData(StrictModel):
    """Its ``data``."""

    preprocessed_data_root: str
    num_dataloader_workers: int = Field(default=2, ge=0)


# What each condition of a sample has: required fields, "a|b" for one of both, and optional ones.
_SHOWN_WITH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "first_frame": (("image_or_video",), ()),
    "prefix": (("video|audio",), ("num_frames", "duration")),
    "suffix": (("video|audio",), ("num_frames", "duration")),
    "spatial_crop": (("video", "spatial_region"), ()),
    "mask": (("video|audio", "mask"), ()),
    "reference": (
        ("video|audio",),
        ("downscale_factor", "temporal_scale_factor", "include_in_output"),
    ),
    "video_to_audio": (("video",), ()),
    "audio_to_video": (("audio",), ()),
}


class OfficialShown(StrictModel):
    """What a validation sample is conditioned on."""

    type: Literal[
        "first_frame",
        "prefix",
        "suffix",
        "spatial_crop",
        "mask",
        "reference",
        "video_to_audio",
        "audio_to_video",
    ]
    image_or_video: str | None = None
    video: str | None = None
    audio: str | None = None
    mask: str | None = None
    num_frames: int | None = Field(default=None, ge=1)
    duration: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    spatial_region: Region | None = None
    downscale_factor: int | None = Field(default=None, ge=1)
    temporal_scale_factor: int | None = Field(default=None, ge=1)
    include_in_output: bool | None = None

    @property
    def frozen(self) -> Literal["video", "audio"] | None:
        """Stream that is given as a whole."""
        if self.type == "video_to_audio":
            return "video"
        return "audio" if self.type == "audio_to_video" else None

    @property
    def target(self) -> Literal["video", "audio"]:
        """Stream that it conditions, or gives."""
        return "audio" if self.audio else "video"

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        needed, optional = _SHOWN_WITH[self.type]
        given = {name for name, value in self if value is not None} - {"type"}
        alternatives = [part.split("|") for part in needed]
        known = {*optional, *(name for names in alternatives for name in names)}
        if any(len(given & {*names}) != 1 for names in alternatives) or given - known:
            words = " and ".join(" or ".join(names) for names in alternatives)
            raise ValueError(
                f"{self.type}: expected {words}"
                + (f", and perhaps {', '.join(optional)}" if optional else "")
                + f"; got {', '.join(sorted(given)) or 'none'}"
            )
        rest = 1 if self.type == "prefix" else 0
        if self.num_frames is not None and self.num_frames % 8 != rest:
            below = (self.num_frames - rest) // 8 * 8 + rest
            near = " and ".join(str(frames) for frames in (below, below + 8) if frames > 0)
            raise ValueError(
                f"{self.type}: num_frames={self.num_frames} should be a multiple of 8"
                f"{' and 1' if rest else ''}; nearest: {near}"
            )
        return self


Dims = tuple[int, int, int]


def _legal(dims: Dims) -> Dims:
    width, height, frames = dims
    if width < 32 or height < 32 or frames < 1 or width % 32 or height % 32 or frames % 8 != 1:
        near = [max(32, round(size / 32) * 32) for size in (width, height)]
        near.append(max(0, round((frames - 1) / 8)) * 8 + 1)
        raise ValueError(
            f"{list(dims)} should be width and height in multiples of 32, and 8k + 1 frames; "
            f"nearest is {near}"
        )
    return dims


LegalDims = Annotated[Dims, AfterValidator(_legal)]


class OfficialSample(StrictModel):
    """A validation sample."""

    prompt: str
    conditions: tuple[OfficialShown, ...] = ()
    video_dims: LegalDims | None = None
    seed: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _freezes_one_stream(self) -> Self:
        frozen = [one.frozen for one in self.conditions if one.frozen]
        if len(frozen) > 1:
            raise ValueError("video_to_audio and audio_to_video exclude each other; expected one")
        for one in self.conditions:
            if frozen and not one.frozen and one.target == frozen[0]:
                raise ValueError(f"{one.type} conditions {frozen[0]}, which is given as a whole")
        return self


class OfficialValidation(StrictModel):
    """Its ``validation``; ``None`` stands for defaults that depend on the release."""

    samples: tuple[OfficialSample, ...] = ()
    prompts: tuple[str, ...] = ()
    images: tuple[str, ...] | None = None
    reference_videos: tuple[str, ...] | None = None
    negative_prompt: str | None = None
    video_dims: LegalDims | None = None
    frame_rate: float | None = Field(default=None, gt=0)
    seed: int = Field(default=42, ge=0)
    inference_steps: int | None = Field(default=None, ge=1)
    interval: int | None = Field(default=100, ge=1)
    videos_per_prompt: int = Field(default=1, ge=1)
    guidance_scale: Scale | None = None
    stg_scale: float | None = None
    stg_mode: Literal["stg_av", "stg_v"] | None = None
    stg_blocks: tuple[int, ...] | None = None
    video_cfg_scale: Scale | None = None
    audio_cfg_scale: Scale | None = None
    video_stg_scale: float | None = None
    audio_stg_scale: float | None = None
    guidance_rescale: float | None = Field(default=None, ge=0, le=1)
    video_modality_guidance_scale: Scale | None = None
    audio_modality_guidance_scale: Scale | None = None
    generate_audio: bool = True
    generate_video: bool = True
    skip_initial_validation: bool = False
    reference_downscale_factor: int = Field(default=1, ge=1)
    include_reference_in_output: bool = False

    @property
    def is_old(self) -> bool:
        """Whether it is of a release before guidance was said by stream."""
        return bool({*_SPLIT, "videos_per_prompt"} & self.model_fields_set)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = self.model_fields_set
        for old, new in _SPLIT.items():
            if old in given and (both := given & {*new}):
                raise ValueError(f"{old} and {', '.join(sorted(both))} are the same; expected one")
        if not (self.generate_audio or self.generate_video):
            raise ValueError("generates neither video nor audio; expected one of them at least")
        for field in ("images", "reference_videos"):
            files = getattr(self, field)
            if files is not None and len(files) != len(self.prompts):
                raise ValueError(
                    f"{len(files)} {field} for {len(self.prompts)} prompts; expected one for each"
                )
        return self


class OfficialCheckpoints(StrictModel):
    """Its ``checkpoints``."""

    interval: int | None = Field(default=None, ge=1)
    keep_last_n: int = Field(default=1, ge=-1)
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    no_resume: bool = False
    save_training_state: Literal["full", "minimal", "off"] = "minimal"

    @field_validator("save_training_state", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:  # noqa: ANN401 - what a person has written
        """In YAML a bare ``off`` is false."""
        return "off" if value is False else value


class OfficialFlowMatching(StrictModel):
    """Its ``flow_matching``."""

    timestep_sampling_mode: Literal["uniform", "shifted_logit_normal"] = "shifted_logit_normal"
    timestep_sampling_params: dict[str, float] = Field(default_factory=dict)


class OfficialHub(StrictModel):
    """Its ``hub``."""

    push_to_hub: bool = False
    hub_model_id: str | None = None

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("push_to_hub needs hub_model_id, such as user/model")
        return self


class OfficialWandb(StrictModel):
    """Its ``wandb``."""

    enabled: bool = False
    project: str = "ltxv-trainer"
    entity: str | None = None
    tags: tuple[str, ...] = ()
    log_validation_videos: bool = True


class OfficialSpec(StrictModel):
    """A whole file."""

    model: OfficialModel
    lora: OfficialLora | None = None
    training_strategy: Annotated[OfficialStrategy, BeforeValidator(_named)] = Field(
        default_factory=lambda: OfficialTextToVideo(name="text_to_video")
    )
    optimization: OfficialOptimization = Field(default_factory=OfficialOptimization)
    acceleration: OfficialAcceleration = Field(default_factory=OfficialAcceleration)
    data: OfficialData
    validation: OfficialValidation = Field(default_factory=OfficialValidation)
    checkpoints: OfficialCheckpoints = Field(default_factory=OfficialCheckpoints)
    flow_matching: OfficialFlowMatching = Field(default_factory=OfficialFlowMatching)
    hub: OfficialHub = Field(default_factory=OfficialHub)
    wandb: OfficialWandb = Field(default_factory=OfficialWandb)
    seed: int = Field(default=42, ge=0)
    output_dir: str = "outputs"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        mode, shown = self.model.training_mode, self.validation
        if mode == "lora" and self.lora is None:
            raise ValueError("model.training_mode lora needs a lora block")
        if mode == "full" and self.acceleration.quantization:
            raise ValueError(
                f"acceleration.quantization {self.acceleration.quantization} is of adapters; "
                "expected null with model.training_mode full"
            )
        if self.training_strategy.name == "video_to_video":
            if mode != "lora":
                raise ValueError("training_strategy video_to_video needs model.training_mode lora")
            referring = [
                any(one.type == "reference" for one in sample.conditions)
                for sample in shown.samples
            ] or [shown.reference_videos is not None]
            if shown.interval is not None and not all(referring):
                raise ValueError(
                    "training_strategy video_to_video needs validation.reference_videos, or "
                    "validation.interval null"
                )
        return self
