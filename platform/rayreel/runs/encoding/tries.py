"""A pass over items: what failed for good is not tried again, what may go otherwise is."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from rayreel.cluster.board import Board
from rayreel.cluster.connect import Capacity, accelerator, capacity, connected
from rayreel.cluster.jobs import run_id
from rayreel.cluster.pool import preflight
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import tracing_target
from rayreel.config.encode import EncodeStageName
from rayreel.data.ledger import LedgerTable
from rayreel.logs import log_context, log_settings
from rayreel.pipelines.devices import Device
from rayreel.runs.encoding.costs import EncodeCosts
from rayreel.runs.encoding.opened import EncodeRun
from rayreel.runs.encoding.pools import encode_devices, encode_pool
from rayreel.runs.encoding.progress import RowProgress
from rayreel.runs.left import Retry
from rayreel.runs.passes import Passes, lost
from rayreel.runs.planning.costs import CostBook
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


@dataclass
class Tries:
    """Sends items through passes; joins the cluster when the first of them has something to do.

    Attributes:
        run: The job.
        before: Its ledger, as it was when the job started.
        progress: Told of every item.
        retry: ``failed``: what failed for good is tried again too.
    """

    run: EncodeRun
    before: LedgerTable
    progress: RowProgress
    retry: Retry = "none"
    worked: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)
    _passes: Passes | None = field(default=None, repr=False)
    _free: Capacity | None = field(default=None, repr=False)
    _devices: dict[EncodeStageName, Device] = field(default_factory=dict, repr=False)
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
            earlier = self._earlier(item)
            if isinstance(earlier, ItemFailure):
                results[item.item_id] = earlier
            else:
                left.append(earlier)
        if not left:
            return results
        passes = self._connected()
        self.progress.enter(name, len(left))
        start = time.monotonic()
        waits = passes.back_offs()
        while left:
            left = self._tried(passes, name, left, batches, results)
            if left:
                wait_s = next(waits)
                log.warning("%s: %d items are tried again in %.0f s", name, len(left), wait_s)
                time.sleep(wait_s)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        return results

    def close(self) -> None:
        """Keep what items cost for later runs, and leave the cluster."""
        with self._stack:
            if self._passes:
                CostBook.load(self.run.store).merged(self._costs.book()).save(self.run.store)

    @property
    def devices(self) -> Mapping[EncodeStageName, Device]:
        """Of the passes; empty before anything was done."""
        return self._devices

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
        passes: Passes,
        name: EncodeStageName,
        items: Sequence[I],
        batches: Batches[I],
        results: dict[str, I | ItemFailure],
    ) -> list[I]:
        """Those that are to be tried again; ``results`` takes all others."""
        assert self._free is not None, "connected"
        pool = encode_pool(self.run.spec, name, self._devices, self._free)
        preflight([pool], self._free)
        work = batches(items, pool.max_replicas)
        pool = pool.for_batches(len(work))
        waiting = {item.item_id: item for item in items}
        again: list[I] = []

        def settle(item: I, result: I | ItemFailure) -> None:
            if isinstance(result, ItemFailure):
                failure = replace(result, attempt=item.attempt)
                if passes.failed(failure):
                    again.append(replace(item, attempt=item.attempt + 1))
                    return
            else:
                self._costs.took(name, result, self._devices[name])
            self.run.lease.check()
            results[item.item_id] = result
            self.progress.advance()

        started_ns = time.time_ns()
        for result in passes.run(work, [pool]):
            passes.tracer.item(started_ns, result)
            if item := waiting.pop(result.item_id, None):
                settle(item, result)
        for item in waiting.values():
            settle(item, lost(item, name))
        return again

    def _connected(self) -> Passes:
        if self._passes is None:
            spec = self.run.spec
            self._stack.enter_context(connected())
            self._free = capacity()
            self._devices = encode_devices(spec, self._free)
            gpu = accelerator(self._free)
            self._costs = EncodeCosts(gpu[0] if gpu else "")
            telemetry = Telemetry(run_id(spec.output), tracing_target(spec.traces), log_settings())
            self._stack.enter_context(log_context(run=telemetry.run))
            board = self._stack.enter_context(closing(Board()))
            self._passes = self._stack.enter_context(
                closing(Passes(self.run.ledger, self.run.lease, board, telemetry, spec.attempts))
            )
            self.worked = True
        return self._passes
