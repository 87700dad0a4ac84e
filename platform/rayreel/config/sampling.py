"""Values that steer how a clip is sampled."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, field_validator

from rayreel.config.base import StrictModel

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SignedScale = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

SkippedAttention = Literal["self_attention", "cross_modal"]


class GuidanceBin(StrictModel):
    """Guidance at low noise levels; what it leaves at null follows the guidance around it."""

    up_to: float = Field(gt=0, le=1, description="Highest noise level at which it holds.")
    cfg_scale: Scale | None = Field(default=None, description="As in the guidance around it.")
    stg_scale: SignedScale | None = Field(default=None, description="Likewise.")
    rescale_scale: Share | None = Field(default=None, description="Likewise.")
    modality_scale: Scale | None = Field(default=None, description="Likewise.")
    skip_step: NonNegativeInt | None = Field(default=None, description="Likewise.")


class Guidance(StrictModel):
    """How far one stream is pushed away from weaker predictions; the defaults change nothing."""

    method: str = Field(
        default="cfg",
        description="How cfg_scale pushes away from the negative prompt: cfg, cfg_star, apg or "
        "legacy_apg.",
    )
    cfg_scale: Scale = Field(
        default=1.0,
        description="Weight of the prompt against the negative prompt; 1 needs no negative prompt, "
        "and with legacy_apg 0 needs none.",
    )
    eta: Scale = Field(
        default=1.0,
        description="Of apg and legacy_apg: share kept of the push along the prediction for the "
        "prompt; 1 keeps all of it.",
    )
    norm_threshold: Scale = Field(
        default=0.0,
        description="Of apg and legacy_apg: largest norm of the push, 0 for no limit; legacy_apg "
        "was published with 5.",
    )
    momentum: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="Of legacy_apg: share of the push that is carried to the next step; negative "
        "values push against it.",
    )
    stg_scale: SignedScale = Field(
        default=0.0,
        description="Push away from a prediction that leaves out attention; 0 is off.",
    )
    stg_blocks: tuple[NonNegativeInt, ...] | None = Field(
        default=(),
        description="Transformer blocks that stg_scale perturbs; null means every block.",
    )
    stg_skips: tuple[SkippedAttention, ...] = Field(
        default=("self_attention",),
        min_length=1,
        description="What stg_scale leaves out in stg_blocks: the stream's self-attention, or with "
        "cross_modal what it receives from the other stream.",
    )
    rescale_scale: Share = Field(
        default=0.0,
        description="How much of the unguided standard deviation is restored after guidance.",
    )
    modality_scale: Scale = Field(
        default=1.0,
        description="Push away from a prediction that cannot see the other stream; 1 is off.",
    )
    skip_step: NonNegativeInt = Field(
        default=0,
        description="Steps that reuse the last prediction after each evaluated one.",
    )
    by_sigma: tuple[GuidanceBin, ...] = Field(
        default=(),
        description="Other values at lower noise levels: the bin with the smallest up_to that is "
        "not below the level holds, and above all bins the guidance itself.",
    )

    @field_validator("by_sigma")
    @classmethod
    def _from_high_to_low_noise(cls, bins: tuple[GuidanceBin, ...]) -> tuple[GuidanceBin, ...]:
        """One order, so that guidance that does the same is equal."""
        bounds = [one.up_to for one in bins]
        for index, bound in enumerate(bounds):
            if bound in bounds[:index]:
                raise ValueError(
                    f"bins {bounds.index(bound)} and {index} both end at up_to={bound:g}; "
                    "expected different ends"
                )
        return tuple(sorted(bins, key=lambda one: -one.up_to))
