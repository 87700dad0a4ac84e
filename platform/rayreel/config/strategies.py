"""What a model is trained to do: which streams it generates, and what of them it is shown.

A strategy is one class here: fields for people, and ``streams``, which says them in the words that
all strategies share.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rayreel.config.base import StrictModel

Probability = Annotated[
    float, Field(ge=0, le=1, description="share of the samples that are shown it")
]


class FirstFrame(StrictModel):
    """The first latent frame stays clean, as from an image."""

    type: Literal["first_frame"] = "first_frame"
    probability: Probability = 1.0


class Prefix(StrictModel):
    """The start stays clean: the sample is the continuation of a clip."""

    type: Literal["prefix"] = "prefix"
    length: int = Field(ge=1, description="latent frames, or steps of sound")
    probability: Probability = 1.0


class Suffix(StrictModel):
    """The end stays clean: the sample leads up to a clip."""

    type: Literal["suffix"] = "suffix"
    length: int = Field(ge=1, description="latent frames, or steps of sound")
    probability: Probability = 1.0


class SpatialCrop(StrictModel):
    """A rectangle stays clean in all frames: the rest is painted around it."""

    type: Literal["spatial_crop"] = "spatial_crop"
    region: tuple[int, int, int, int] = Field(
        description="top, left, bottom, right in pixels; taken down to whole latent positions"
    )
    probability: Probability = 1.0

    @model_validator(mode="after")
    def _is_a_rectangle(self) -> Self:
        top, left, bottom, right = self.region
        if min(top, left) < 0 or bottom <= top or right <= left:
            raise ValueError(
                f"region {list(self.region)} is empty; expected top, left, bottom, right, such as "
                "[0, 0, 288, 576]"
            )
        return self


class Mask(StrictModel):
    """What the sample's mask marks stays clean: the rest is painted into it."""

    type: Literal["mask"] = "mask"
    probability: Probability = 1.0


class Reference(StrictModel):
    """The sample's reference is there as further clean tokens; one draw for all of a step."""

    type: Literal["reference"] = "reference"
    frame: int = Field(
        default=0,
        description="of pictures: 0 lays the reference along the sample, as in-context adapters "
        "want it; another frame, -1 for the last, pins a reference of a single frame there, as "
        "keyframes are",
    )
    probability: Probability = 1.0


Condition = Annotated[
    FirstFrame | Prefix | Suffix | SpatialCrop | Mask | Reference, Field(discriminator="type")
]


class StreamSpec(StrictModel):
    """What becomes of one stream."""

    generated: bool = Field(
        default=True, description="whether it is learned, or clean context for the other one"
    )
    conditions: tuple[Condition, ...] = Field(
        default=(), description="what of it is shown, each drawn for every sample anew, in order"
    )

    @model_validator(mode="after")
    def _context_is_whole(self) -> Self:
        if not self.generated and any(one.type != "reference" for one in self.conditions):
            raise ValueError(
                "a stream that is not generated is clean as a whole; of conditions it may have "
                "references"
            )
        return self

    @model_validator(mode="after")
    def _has_one_reference(self) -> Self:
        if sum(one.type == "reference" for one in self.conditions) > 1:
            raise ValueError(
                "a stream has more than one condition of type reference; expected one, as samples "
                "have one reference"
            )
        return self

    @property
    def has_reference(self) -> bool:
        """Whether samples need a reference."""
        return any(one.type == "reference" for one in self.conditions)

    @property
    def has_mask(self) -> bool:
        """Whether samples need a mask."""
        return any(one.type == "mask" for one in self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """A strategy in the words that all of them share.

    Attributes:
        video: ``None`` where samples are sound alone to it.
        audio: ``None`` where they are pictures alone.
        shared_sigma: Whether both streams have the noise level that is drawn for the video, or each
            its own.
    """

    video: StreamSpec | None
    audio: StreamSpec | None
    shared_sigma: bool = False

    @property
    def in_context(self) -> bool:
        """Whether references lie along samples, as those that in-context adapters are given."""
        return any(
            condition.type == "reference" and not condition.frame
            for one in (self.video, self.audio)
            for condition in (one.conditions if one else ())
        )


class Strategy(StrictModel):
    """Base of all strategies."""

    @abstractmethod
    def streams(self) -> Streams:
        """What becomes of both streams."""


class TextToVideo(Strategy):
    """Picture, sound or both from text, some of them from a first frame as well."""

    name: Literal["text_to_video"] = "text_to_video"
    video: bool = Field(default=True, description="whether the picture is learned")
    audio: bool = Field(default=True, description="whether the sound is learned")
    first_frame: float = Field(
        default=0.1, ge=0, le=1, description="share of the samples that are shown their first frame"
    )

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not (self.video or self.audio):
            raise ValueError("learns neither video nor audio; set one of them to true")
        return self

    def streams(self) -> Streams:
        """Both with one noise level."""
        shown = (FirstFrame(probability=self.first_frame),) if self.first_frame else ()
        return Streams(
            video=StreamSpec(conditions=shown) if self.video else None,
            audio=StreamSpec() if self.audio else None,
            shared_sigma=True,
        )


class InContext(Strategy):
    """Video from a reference video: what an in-context adapter (IC-LoRA) learns."""

    name: Literal["ic_lora"] = "ic_lora"
    first_frame: float = Field(
        default=0.1, ge=0, le=1, description="share of the samples that are shown their first frame"
    )

    def streams(self) -> Streams:
        """Video alone."""
        shown = (FirstFrame(probability=self.first_frame),) if self.first_frame else ()
        return Streams(video=StreamSpec(conditions=(*shown, Reference())), audio=None)


class Flexible(Strategy):
    """Whatever conditions say."""

    name: Literal["flexible"] = "flexible"
    video: StreamSpec | None = Field(default=None, description="none: sound alone")
    audio: StreamSpec | None = Field(default=None, description="none: pictures alone")
    shared_sigma: bool = Field(
        default=False,
        description="whether both streams have one noise level, as when both are generated, or "
        "each its own",
    )

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not any(one and one.generated for one in (self.video, self.audio)):
            raise ValueError("generates neither video nor audio; expected one of them at least")
        for one in self.audio.conditions if self.audio else ():
            if one.type in {"first_frame", "spatial_crop"}:
                raise ValueError(
                    f"audio has no {one.type}; expected prefix, suffix, mask, reference"
                )
            if one.type == "reference" and one.frame:
                raise ValueError(
                    f"a reference of sound is pinned to no frame; leave frame {one.frame} out"
                )
        return self

    def streams(self) -> Streams:
        """As they are written."""
        return Streams(video=self.video, audio=self.audio, shared_sigma=self.shared_sigma)


AnyStrategy = Annotated[TextToVideo | InContext | Flexible, Field(discriminator="name")]
