"""The workers of an encode job on a Ray cluster, which is joined when there is something to do."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from rayreel.cluster.board import Board
from rayreel.cluster.connect import Capacity, accelerator, capacity, connected
from rayreel.cluster.jobs import run_id
from rayreel.cluster.pool import preflight
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import tracing_target
from rayreel.config.encode import EncodeStageName
from rayreel.logs import log_context, log_settings
from rayreel.pipelines.devices import Device
from rayreel.runs.encoding.opened import EncodeRun
from rayreel.runs.encoding.pools import encode_devices, encode_pool
from rayreel.runs.encoding.tries import Batches, I
from rayreel.runs.passes import Passes
from rayreel.stages.base import ItemFailure


@dataclass
class OnCluster:
    """Pools of actors, one pass after the other.

    Attributes:
        run: The job.
        devices: Of the passes; empty before anything was worked on.
        hardware: Product name of the cluster's accelerators, where there are any.
    """

    run: EncodeRun
    devices: Mapping[EncodeStageName, Device] = field(default_factory=dict)
    hardware: str = ""
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)
    _joined: tuple[Passes, Capacity] | None = field(default=None, repr=False)

    def work(
        self, name: EncodeStageName, items: Sequence[I], batches: Batches[I]
    ) -> Iterator[I | ItemFailure]:
        """Results of items that go through a pass, as they finish.

        Raises:
            ClusterError: If the cluster cannot hold the pass, a stage is broken, or it is lost.
        """
        passes, free = self._join()
        pool = encode_pool(self.run.spec, name, self.devices, free)
        preflight([pool], free)
        work = batches(items, pool.max_replicas)
        started_ns = time.time_ns()
        for result in passes.run(work, [pool.for_batches(len(work))]):
            passes.tracer.item(started_ns, result)
            yield result

    def back_offs(self) -> Iterator[float]:
        """Seconds to wait before each further try."""
        return self._join()[0].back_offs()

    def failed(self, failure: ItemFailure) -> bool:
        """Record a failed try; whether the item is to be tried again."""
        return self._join()[0].failed(failure)

    def close(self) -> None:
        """Leave the cluster."""
        self._stack.close()

    def _join(self) -> tuple[Passes, Capacity]:
        if self._joined is None:
            spec = self.run.spec
            self._stack.enter_context(connected())
            free = capacity()
            self.devices = encode_devices(spec, free)
            gpu = accelerator(free)
            self.hardware = gpu[0] if gpu else ""
            telemetry = Telemetry(run_id(spec.output), tracing_target(spec.traces), log_settings())
            self._stack.enter_context(log_context(run=telemetry.run))
            board = self._stack.enter_context(closing(Board()))
            passes = Passes(self.run.ledger, self.run.lease, board, telemetry, spec.attempts)
            self._joined = self._stack.enter_context(closing(passes)), free
        return self._joined
