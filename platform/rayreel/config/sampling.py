"""Values that steer how a clip is sampled."""

from pydantic import Field, NonNegativeInt

from rayreel.config.base import StrictModel


class Guidance(StrictModel):
    """How far one stream is pushed away from weaker predictions; the defaults change nothing."""

    cfg_scale: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight of the prompt against the negative prompt; 1 needs no negative prompt.",
    )
    stg_scale: float = Field(
        default=0.0,
        allow_inf_nan=False,
        description="Push away from a prediction whose self-attention is perturbed; 0 is off.",
    )
    stg_blocks: tuple[NonNegativeInt, ...] | None = Field(
        default=(),
        description="Transformer blocks that stg_scale perturbs; null means every block.",
    )
    rescale_scale: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How much of the unguided standard deviation is restored after guidance.",
    )
    modality_scale: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="Push away from a prediction that cannot see the other stream; 1 is off.",
    )
    skip_step: NonNegativeInt = Field(
        default=0,
        description="Steps that reuse the last prediction after each evaluated one.",
    )
