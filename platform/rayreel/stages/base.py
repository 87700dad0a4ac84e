"""What a stage is: a picklable callable that turns a batch of items into as many results."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from rayreel.config.request import RenderRequest
from rayreel.data.ledger import LedgerEntry
from rayreel.types import Latents


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailure:
    """An item that could not be done, as a value that travels on with the others.

    Attributes:
        item_id: The item.
        stage: Where it failed.
        error: Class of the error.
        message: What it said.
        seed: Seed of the request; texts have none.
        attempt: Which try of the item this was, from 1.
        seconds: Time that its last try in this stage took.
        retryable: Whether another try may go otherwise.
    """

    item_id: str
    stage: str
    error: str
    message: str
    seed: int | None
    attempt: int
    seconds: float
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageItem:
    """What every stage knows of an item.

    Attributes:
        item_id: Its identity.
        attempt: Which try of the item this is, from 1.
        seconds: Time that each stage took for this item; a batch's time is shared evenly.
        memory: What had to be done for it to fit into memory, such as ``batch 2, tiles``.
    """

    item_id: str
    attempt: int = 1
    seconds: tuple[tuple[str, float], ...] = ()
    memory: str | None = None

    @property
    def seed(self) -> int | None:
        """Seed of what is asked for, where there is one."""
        return None

    def finished(self, entry: LedgerEntry) -> Self | None:  # noqa: ARG002 - items that have files
        """The item with what its line in the ledger tells of, if that is a file of its own."""
        return None


ItemT = TypeVar("ItemT", bound=StageItem)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextItem(StageItem):
    """A text on its way into the store; its identity is that of the render item, or the text's key.

    Attributes:
        text: What is to be encoded.
        request: The resolved request whose prompt is written out first, if that is asked for.
        written: The prompt that was written, where it is another one.
        notes: What happened otherwise than asked.
    """

    text: str
    request: RenderRequest | None = None
    written: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def seed(self) -> int | None:
        """Seed of the request."""
        return self.request.seed if self.request else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that an item became, in the run directory.

    Attributes:
        path: Where it lies, from the run directory.
        sha256: Of a clip, the hash of the decoded frames, or of sound alone, before they were
            compressed; else of the file.
        num_bytes: Size of the file.
    """

    path: str
    sha256: str
    num_bytes: int

    @classmethod
    def of(cls, entry: LedgerEntry) -> Self | None:
        """The file of a line in the ledger, where it tells of one."""
        if entry.output is None or entry.sha256 is None or entry.num_bytes is None:
            return None
        return cls(path=entry.output, sha256=entry.sha256, num_bytes=entry.num_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderItem(StageItem):
    """A request on its way from prompt to clip; each stage fills in its part.

    Its identity is that of the request and the weights.

    Attributes:
        request: The resolved request.
        prompts: What it is rendered from, where prompts were written for it: one for each chunk.
        notes: What happened otherwise than asked.
        batch: How many were denoised together.
        latents: The clip before decoding; chunks of a long one lie in the run directory instead.
        output: The written clip.
    """

    request: RenderRequest
    prompts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    batch: int | None = None
    latents: Latents | None = None
    output: Artifact | None = None

    @property
    def seed(self) -> int | None:
        """Seed of the request."""
        return self.request.seed

    def finished(self, entry: LedgerEntry) -> Self | None:
        """The item with the clip that its line in the ledger tells of."""
        output = Artifact.of(entry)
        return None if output is None else replace(self, output=output, latents=None)


Result = RenderItem | ItemFailure


class Stage(Protocol[ItemT]):
    """A unit of a job that can be scheduled on its own.

    Cheap to build and to pickle; ``setup`` loads weights, once, where the stage runs. A call gives
    one result per item, in order. Workers die and are replaced, so a stage may see an item twice.
    """

    @property
    def name(self) -> str:
        """Name in specs, ledgers and logs."""

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""

    def setup(self) -> None:
        """Load what the stage needs."""

    def __call__(self, batch: Sequence[ItemT]) -> list[ItemT | ItemFailure]:
        """Do the stage's part for every item."""


def run_stage(
    stage: Stage[ItemT], results: Sequence[ItemT | ItemFailure]
) -> list[ItemT | ItemFailure]:
    """Apply a stage to the items of a batch; what failed before passes through.

    Returns:
        One result per input, in order, with the stage's time noted.
    """
    items = [result for result in results if not isinstance(result, ItemFailure)]
    if not items:
        return list(results)
    start = time.perf_counter()
    done = stage(items)
    each = (time.perf_counter() - start) / len(items)
    outcome = iter(
        result
        if isinstance(result, ItemFailure)
        else replace(result, seconds=(*result.seconds, (stage.name, each)))
        for result in done
    )
    return [r if isinstance(r, ItemFailure) else next(outcome) for r in results]
