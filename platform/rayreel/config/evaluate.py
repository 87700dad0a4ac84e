"""What a person writes to find out what a model has learnt of the drawn world."""

import re
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.jobs import ModelSetup
from rayreel.config.request import RequestFields

Given = Literal["first_frame", "last_frame", "reference"]
"""What a request takes from the drawn scene beside its prompt."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_FILES = {"first_frame": "images", "last_frame": "images", "reference": "references"}


class SuiteSpec(StrictModel):
    """Scenes that are judged together."""

    name: str = Field(description="what tables call it: small letters, digits, - and _")
    clips: int = Field(
        ge=1,
        description="how many; suites that choose alike have the same scenes, prompts and noise",
    )
    things: Literal[1, 2] | None = Field(
        default=None, description="in each scene; by default two in two of five"
    )
    split: Literal["held-out", "train"] = Field(
        default="held-out",
        description="held-out: combinations of colour, shape and motion that training never has",
    )
    new: Literal["colour", "shape"] | None = Field(
        default=None,
        description="each scene has a thing of the colour, or shape, that base data never has",
    )

    @field_validator("name")
    @classmethod
    def _can_be_a_file(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected small letters, digits, - and _, such as one-thing")
        return value


class RenderedSuite(SuiteSpec):
    """Prompts are rendered, and the clips judged by what they show and sound like."""

    type: Literal["rendered"] = "rendered"
    request: RequestFields = Field(
        default_factory=RequestFields, description="fields of every request of the suite"
    )
    given: tuple[Given, ...] = Field(
        default=(),
        description="what requests take from the drawn scene: the frame at either end as an image, "
        "or the moving outlines, white on black, as a reference; whether it was kept is judged too",
    )
    parts: int = Field(
        default=1,
        ge=1,
        description="equal stretches of a clip that are judged one by one: what is asked for has "
        "to be right in each",
    )

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        request = self.request
        if request.prompt is not None:
            raise ValueError("request.prompt is that of the scene; expected none")
        if not request.video:
            raise ValueError("request.video is false; expected clips with a picture")
        if request.num_frames == 1:
            raise ValueError(
                "request.num_frames is 1; expected clips that move, of 9 frames or more"
            )
        for given in self.given:
            if getattr(request, _FILES[given]):
                raise ValueError(
                    f"given {given} and request.{_FILES[given]} exclude each other; leave out one"
                )
        if self.given and request.seconds is not None:
            raise ValueError("what is given needs the length in request.num_frames, not in seconds")
        return self


class ReconstructedSuite(SuiteSpec):
    """Drawn clips go through the video VAE, and their sound through audio VAE and vocoder."""

    type: Literal["reconstructed"] = "reconstructed"
    width: int = Field(default=128, gt=0, le=8192, description="pixels")
    height: int = Field(default=128, gt=0, le=8192, description="pixels")
    num_frames: int = Field(default=25, gt=0, description="frames, 8k + 1")
    fps: float = Field(default=24.0, ge=1, le=240, description="frames per second")


class BoundsSpec(StrictModel):
    """How far off something may be and still count as right."""

    psnr_db: float = Field(
        default=18.0,
        ge=0,
        description="of the things in a frame that was given, against what was given, in the "
        "pixels that they cover and those next to them",
    )
    distance: float = Field(
        default=0.08,
        ge=0,
        description="from a thing to where the reference has it, over all frames on average, in "
        "shares of the frame's shorter side",
    )
    synchrony_s: float = Field(
        default=0.05, ge=0, description="between a bounce and its click, the worst of a clip"
    )


Suite = Annotated[RenderedSuite | ReconstructedSuite, Field(discriminator="type")]


class EvalSpec(ModelSetup):
    """What a model is asked for, and where the answers go."""

    suites: tuple[Suite, ...] = Field(
        default=(
            RenderedSuite(name="one-thing", clips=200, things=1),
            RenderedSuite(name="two-things", clips=100, things=2),
            ReconstructedSuite(name="reconstructed", clips=50),
        ),
        min_length=1,
        description="in the order of the tables",
    )
    output: str = Field(default="runs/eval", description="run directory: a folder or a URI")
    seed: int = Field(default=0, ge=0, description="of scenes, prompts and noise")
    bounds: BoundsSpec = Field(
        default_factory=BoundsSpec, description="how far off something may be"
    )

    @model_validator(mode="after")
    def _names_are_different(self) -> Self:
        counts = Counter(suite.name for suite in self.suites)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"two suites are called {twice[0]!r}; expected different names")
        return self

    def shortened(self, clips: int) -> Self:
        """The same with at most so many clips of each suite, the first ones."""
        suites = [
            suite.model_copy(update={"clips": min(suite.clips, clips)}) for suite in self.suites
        ]
        return self.model_copy(update={"suites": tuple(suites)})
