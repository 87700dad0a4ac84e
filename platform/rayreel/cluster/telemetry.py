"""What a worker tells of its batches: metrics, traces and log lines, under the id of the run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rayreel.cluster.metrics import StageMetrics
from rayreel.cluster.tracing import Tracer
from rayreel.logs import LogSettings, log_context, setup_logging
from rayreel.stages.base import ItemFailure, Stage


@dataclass(frozen=True)
class Telemetry:
    """How a run is observed; small enough to send to every worker.

    Attributes:
        run: Short id of the run.
        traces: Where spans go, from ``tracing_target``; ``None`` for nowhere.
        logs: How the driver logs.
    """

    run: str
    traces: str | None = None
    logs: LogSettings = field(default_factory=LogSettings)


class Observer:
    """Tells of the batches of one worker."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Set up the logs of this process.

        Args:
            telemetry: Of the run.
        """
        setup_logging(telemetry.logs.level, json=telemetry.logs.json)
        self._telemetry = telemetry
        self._tracer = Tracer(telemetry.run, telemetry.traces)
        self._loads = 0

    @contextmanager
    def batch(self, stage: Stage[Any], items: Sequence[Any]) -> Iterator[list[Any]]:
        """Observe a batch in a stage.

        Args:
            stage: That works on it.
            items: What goes in.

        Yields:
            An empty list, for what comes out.
        """
        metrics = StageMetrics(self._telemetry.run, stage.name)
        working = [item for item in items if not isinstance(item, ItemFailure)]
        started_ns, start = time.time_ns(), time.perf_counter()
        results: list[Any] = []
        with log_context(run=self._telemetry.run, items=[item.item_id for item in working]):
            yield results
        if not working:
            return
        metrics.batch(len(working), time.perf_counter() - start)
        for item, result in zip(items, results, strict=True):
            if isinstance(result, ItemFailure) and not isinstance(item, ItemFailure):
                metrics.failure(result.error)
        self._tracer.batch(stage.name, started_ns, items, results)
        # Stages of a worker share networks: whoever needed one first has loaded it.
        for network in stage.loads[self._loads :]:
            metrics.load(network)
        self._loads = max(self._loads, len(stage.loads))
