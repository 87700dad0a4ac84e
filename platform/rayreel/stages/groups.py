"""The work of a stage on a batch: a bad item costs one item, and too little memory takes longer."""

import logging
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic

import torch

from rayreel.errors import Cancelled, CheckpointError, RetryableError, StorageError
from rayreel.stages.base import ItemFailure, ItemT, StageItem

_EXHAUSTED = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

log = logging.getLogger(__name__)


@dataclass
class Relief:
    """How a stage gets along with less memory; what helped once is kept for the batches to come.

    Attributes:
        step: Takes the next measure and names it; ``None`` when there is none left.
        most: Items of one call, at most, by what they have in common.
    """

    step: Callable[[], str | None]
    most: dict[Hashable, int] = field(default_factory=dict)
    taken: tuple[str, ...] = ()

    def smaller(self, key: Hashable, size: int) -> None:
        """Fewer items of this kind fit into one call."""
        self.most[key] = size

    def further(self) -> bool:
        """Take another measure; false when there is none left."""
        step = self.step()
        self.taken += (step,) if step else ()
        return step is not None

    def said(self, key: Hashable, item: StageItem) -> str | None:
        """What an item of a kind needed, here and in stages before."""
        batch = (f"batch {self.most[key]}",) if key in self.most else ()
        before = (item.memory,) if item.memory else ()
        return ", ".join(dict.fromkeys((*before, *batch, *self.taken))) or None


def in_groups(
    name: str,
    batch: Sequence[ItemT],
    key: Callable[[ItemT], Hashable],
    work: Callable[[list[ItemT]], list[ItemT]],
    relief: Relief | None = None,
) -> list[ItemT | ItemFailure]:
    """Do the work of a stage for groups of like items, so that one bad item costs one item.

    A group that fails is done again item by item, and the items that fail alone become failures.
    One that runs out of memory is done again by halves, then with whatever relief the stage has.
    Weights that do not load, a run directory that does not answer, and work that is cancelled are
    not the fault of an item: these errors go on to the caller.

    Args:
        name: The stage.
        batch: Items.
        key: Items of the same key may share one call.
        work: Does a group.
        relief: What to do about too little memory.

    Returns:
        One result per item, in order.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(batch):
        groups.setdefault(key(item), []).append(index)
    results: dict[int, ItemT | ItemFailure] = {}
    relief = relief or Relief(step=lambda: None)
    for kind, indices in groups.items():
        group = _Group(name, kind, work, relief)
        done = group.results([batch[index] for index in indices])
        results |= zip(indices, done, strict=True)
    return [results[index] for index in range(len(batch))]


@dataclass(frozen=True)
class _Group(Generic[ItemT]):
    """Work on items of one kind."""

    name: str
    kind: Hashable
    work: Callable[[list[ItemT]], list[ItemT]]
    relief: Relief

    def results(self, items: list[ItemT]) -> list[ItemT | ItemFailure]:
        """One per item."""
        size = min(len(items), self.relief.most.get(self.kind, len(items)))
        if size < len(items):
            return self._by(size, items)
        start = time.perf_counter()
        done = self._tried(items)
        if not isinstance(done, Exception):
            return [replace(item, memory=self.relief.said(self.kind, item)) for item in done]
        exhausted = is_out_of_memory(done)
        if exhausted and size > 1:
            log.warning("%s: out of memory for a batch of %d, halving it", self.name, size)
            self.relief.smaller(self.kind, (size + 1) // 2)
            return self.results(items)
        if exhausted and self.relief.further():
            log.warning("%s: out of memory; from now on: %s", self.name, self.relief.taken[-1])
            return self.results(items)
        if size > 1:
            log.warning("%s: a batch of %d failed, trying each item alone", self.name, size)
            return self._by(1, items)
        return [_failure(self.name, items[0], done, time.perf_counter() - start)]

    def _by(self, size: int, items: list[ItemT]) -> list[ItemT | ItemFailure]:
        parts = (items[start : start + size] for start in range(0, len(items), size))
        return [result for part in parts for result in self.results(part)]

    def _tried(self, items: list[ItemT]) -> list[ItemT] | Exception:
        """What came of it; the tensors of a call that failed are let go."""
        try:
            return self.work(items)
        except (Cancelled, CheckpointError, StorageError):
            raise
        except Exception as error:
            what = f"item {items[0].item_id}" if len(items) == 1 else f"{len(items)} items"
            log.warning("%s: %s failed", self.name, what, exc_info=True)
            traceback.clear_frames(error.__traceback__)
            return error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was exhausted, of a device or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Allocators beside CUDA's have no class of their own.
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in said for phrase in _EXHAUSTED)


def _failure(name: str, item: StageItem, error: Exception, seconds: float) -> ItemFailure:
    return ItemFailure(
        item_id=item.item_id,
        stage=name,
        error=type(error).__name__,
        message=str(error) or type(error).__name__,
        seed=item.seed,
        attempt=item.attempt,
        seconds=seconds,
        retryable=isinstance(error, RetryableError) or is_out_of_memory(error),
    )
