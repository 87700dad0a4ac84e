"""The ledger of a run: one line per item that was finished, written after its file is in place.

Lines are only ever appended and every writer has parts of its own, so writers need no lock, and a
crash costs at most the line that was being written.
"""

import logging
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from rayreel.config.base import StrictModel
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError

logger = logging.getLogger(__name__)

FOLDER = "ledger"


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


class FailureRecord(StrictModel):
    """Why an item failed."""

    stage: str = Field(description="Name of the stage that gave up.")
    error: str = Field(description="Class of the exception.")
    message: str = Field(description="What a person reads.")


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


class Ledger:
    """The ledger of one run. A copy that is sent to another process writes parts of its own."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._part: Path | None = None

    def __reduce__(self) -> tuple[type["Ledger"], tuple[Storage]]:
        """Pickled without the part, which belongs to this process."""
        return Ledger, (self._storage,)

    def append(self, entry: LedgerEntry) -> None:
        """Record a finished item. Once this returns, the line survives a crash.

        Raises:
            OSError: If it cannot be written.
        """
        line = entry.model_dump_json(exclude_none=True).encode() + b"\n"
        if self._part is None:
            name = f"{FOLDER}/part-{uuid4().hex}.jsonl"
            self._storage.write_bytes(name, line)
            # Object stores cannot append: there every entry is a part, and this stays ``None``.
            self._part = self._storage.local_path(name)
            return
        # Nothing may follow the torn line of a failed write, so after one comes a new part.
        part, self._part = self._part, None
        with part.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._part = part

    def read(self) -> dict[str, LedgerEntry]:
        """The entry that counts for each item, by id.

        A done entry counts more than a failed one, then a later attempt more than an earlier one.

        Raises:
            RayreelError: If a line is damaged in a way that a crash does not explain.
        """
        entries: dict[str, LedgerEntry] = {}
        parts = self._storage.read_many(self._storage.names(FOLDER))
        for name, data in parts.items():
            for entry in _parse(self._storage.join(name), data):
                known = entries.get(entry.item_id)
                if known is None or _weight(entry) > _weight(known):
                    entries[entry.item_id] = entry
        return entries


def _weight(entry: LedgerEntry) -> tuple[bool, int, datetime]:
    return entry.status == "done", entry.attempt, entry.finished_at


def _parse(name: str, data: bytes) -> Iterator[LedgerEntry]:
    *lines, rest = data.split(b"\n")
    if rest:
        logger.warning(
            "%s ends in %d bytes of a line that was never finished: ignored", name, len(rest)
        )
    for number, line in enumerate(lines, start=1):
        try:
            yield LedgerEntry.model_validate_json(line)
        except ValidationError as error:
            raise RayreelError(
                f"line {number} of {name} is damaged ({error.errors()[0]['msg']}); "
                "move the file away to redo its items"
            ) from error
