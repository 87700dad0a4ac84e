"""The two kinds of configuration: what people write, and what weight files declare."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A value that a person writes: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Architecture(BaseModel):
    """A section of a weight file's ``config`` metadata: frozen; keys that nobody reads are dropped.

    Field names are the names in the published files, so a section validates as it is.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
