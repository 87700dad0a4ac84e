"""A line of the ledger: what became of one item."""

import os
import socket
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from rayreel.config.base import StrictModel


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


class FailureRecord(StrictModel):
    """Why an item failed."""

    stage: str = Field(description="Name of the stage that gave up.")
    error: str = Field(description="Class of the exception.")
    message: str = Field(description="What a person reads.")
    retryable: bool = Field(default=False, description="Whether another try may go otherwise.")


class LedgerEntry(StrictModel):
    """What became of one item."""

    item_id: str = Field(min_length=1, description="Hash of the request and the weights.")
    status: Literal["done", "failed"]
    attempt: int = Field(ge=1, description="1 for the first try; reruns count on.")
    seconds: dict[str, float] = Field(default_factory=dict, description="Time spent, by stage.")
    output: str | None = Field(
        default=None, description="File of a done item, relative to the run."
    )
    sha256: str | None = Field(
        default=None, description="Hash of the decoded frames of a done item."
    )
    num_bytes: int | None = Field(
        default=None, ge=0, description="Size of the file of a done item."
    )
    error: FailureRecord | None = Field(default=None, description="What happened to a failed item.")
    num_frames: int | None = Field(
        default=None, ge=0, description="Frames of a done item; 0 for sound alone."
    )
    seed: int | None = Field(default=None, description="Seed that the item was rendered with.")
    prompts: tuple[str, ...] = Field(
        default=(), description="Prompts that were written for the item, one for each chunk."
    )
    notes: tuple[str, ...] = Field(
        default=(), description="What happened otherwise than asked, a sentence each."
    )
    batch: int | None = Field(
        default=None, ge=1, description="Items that were denoised together with a done item."
    )
    memory: str | None = Field(
        default=None, description="What had to be done for a done item to fit into memory."
    )
    worker: str = Field(description="Which process did it.")
    finished_at: Annotated[AwareDatetime, AfterValidator(_to_utc)] = Field(
        description="End of the attempt; kept in UTC."
    )

    @model_validator(mode="after")
    def _fits_status(self) -> "LedgerEntry":
        present = [part is not None for part in (self.output, self.sha256, self.num_bytes)]
        if self.status == "done" and (not all(present) or self.error):
            raise ValueError("a done item has output, sha256 and num_bytes, and no error")
        if self.status == "failed" and (any(present) or not self.error):
            raise ValueError("a failed item has an error, and no output, sha256 or num_bytes")
        return self


def worker_name() -> str:
    """Name of this process for ``LedgerEntry.worker``: machine and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"
