"""A pass over items: what failed for good is not tried again, what may go otherwise is."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from rayreel.config.encode import EncodeStageName
from rayreel.data.ledger import LedgerTable
from rayreel.pipelines.devices import Device
from rayreel.requests.costs import CostBook, device_label
from rayreel.runs.encoding.costs import EncodeCosts
from rayreel.runs.encoding.opened import EncodeRun
from rayreel.runs.encoding.progress import RowProgress
from rayreel.runs.left import Retry
from rayreel.runs.passes import lost
from rayreel.stages.base import ItemFailure, StageItem

I = TypeVar("I", bound=StageItem)  # noqa: E741 - an item

Batches = Callable[[Sequence[I], int], Sequence[Sequence[I]]]
"""Items in batches, for so many workers."""

log = logging.getLogger(__name__)


class Through(Protocol):
    """What sends items through passes."""

    def through(
        self, name: EncodeStageName, items: Sequence[I], batches: Batches[I]
    ) -> dict[str, I | ItemFailure]:
        """What became of items, each by its identity."""


class Workers(Protocol):
    """Where passes are worked on."""

    @property
    def devices(self) -> Mapping[EncodeStageName, Device]:
        """Of the passes; empty before anything was worked on."""

    @property
    def hardware(self) -> str:
        """Product name of the accelerators, where there are any."""

    def work(
        self, name: EncodeStageName, items: Sequence[I], batches: Batches[I]
    ) -> Iterator[I | ItemFailure]:
        """Results of items that go through a pass, as they finish; some may be lost."""

    def back_offs(self) -> Iterator[float]:
        """Seconds to wait before each further try."""

    def failed(self, failure: ItemFailure) -> bool:
        """Record a failed try; whether the item is to be tried again."""

    def close(self) -> None:
        """Let go of them."""


@dataclass
class Tries:
    """Sends items through passes, and keeps account of what becomes of them.

    Attributes:
        run: The job.
        workers: Where passes are worked on.
        before: Its ledger, as it was when the job started.
        progress: Told of every item.
        retry: ``failed``: what failed for good is tried again too.
        seconds: Of wall time, by pass.
    """

    run: EncodeRun
    workers: Workers
    before: LedgerTable
    progress: RowProgress
    retry: Retry = "none"
    seconds: dict[str, float] = field(default_factory=dict)
    _costs: EncodeCosts = field(default_factory=EncodeCosts, repr=False)

    def through(
        self, name: EncodeStageName, items: Sequence[I], batches: Batches[I]
    ) -> dict[str, I | ItemFailure]:
        """What became of items.

        Args:
            name: Of the pass.
            items: Each once, as the first try.
            batches: Puts those that are left together.

        Returns:
            Results by item.

        Raises:
            ClusterError: If a stage is broken, or the cluster is lost.
        """
        results: dict[str, I | ItemFailure] = {}
        left: list[I] = []
        for item in items:
            # What a shard is made of may be there by now.
            earlier = item if name == "shards" else self._earlier(item)
            if isinstance(earlier, ItemFailure):
                results[item.item_id] = earlier
            else:
                left.append(earlier)
        if not left:
            return results
        self.progress.enter(name, len(left))
        start = time.monotonic()
        waits = self.workers.back_offs()
        while left:
            left = self._tried(name, left, batches, results)
            if left:
                wait_s = next(waits)
                log.warning("%s: %d items are tried again in %.0f s", name, len(left), wait_s)
                time.sleep(wait_s)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        return results

    def close(self) -> None:
        """Keep what items cost for later runs, and let go of the workers."""
        with closing(self.workers):
            if self.seconds:
                CostBook.load(self.run.store).merged(self._costs.book()).save(self.run.store)

    def _earlier(self, item: I) -> I | ItemFailure:
        """The item as its next try, or how it failed for good."""
        entry = self.before.entry(item.item_id)
        if entry is None or entry.error is None:
            return item
        error = entry.error
        again = error.retryable and entry.attempt < self.run.spec.attempts
        if again or self.retry == "failed":
            return replace(item, attempt=entry.attempt + 1)
        return ItemFailure(
            item_id=item.item_id,
            stage=error.stage,
            error=error.error,
            message=error.message,
            seed=None,
            attempt=entry.attempt,
            seconds=0.0,
        )

    def _tried(
        self,
        name: EncodeStageName,
        items: Sequence[I],
        batches: Batches[I],
        results: dict[str, I | ItemFailure],
    ) -> list[I]:
        """Those that are to be tried again; ``results`` takes all others."""
        waiting = {item.item_id: item for item in items}
        again: list[I] = []

        def settle(item: I, result: I | ItemFailure) -> None:
            self.run.lease.check()
            if isinstance(result, ItemFailure):
                if self.workers.failed(replace(result, attempt=item.attempt)):
                    again.append(replace(item, attempt=item.attempt + 1))
                    return
            else:
                device = device_label(self.workers.devices[name], self.workers.hardware)
                self._costs.took(name, result, device)
            results[item.item_id] = result
            self.progress.advance()

        for result in self.workers.work(name, items, batches):
            if item := waiting.pop(result.item_id, None):
                settle(item, result)
        for item in waiting.values():
            settle(item, lost(item, name))
        return again
