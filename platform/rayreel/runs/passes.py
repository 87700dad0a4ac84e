"""What every job does with its passes: sends batches out, and keeps account of what fails."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from rayreel.cluster.board import Board
from rayreel.cluster.data import run
from rayreel.cluster.metrics import RunMetrics
from rayreel.cluster.pool import Pool
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import Tracer
from rayreel.data.lease import Lease
from rayreel.data.ledger import FailureRecord, Ledger, LedgerEntry, worker_name
from rayreel.stages.base import ItemFailure, StageItem

# The first results shall be there soon; later waves are larger, as workers start anew for each.
_FIRST_WAVE = 64
_GROWTH = 4
# Before the second try, the third, and all further ones.
_BACK_OFF_S = (2.0, 10.0, 60.0)


T = TypeVar("T")


def in_waves(rows: Iterable[T], largest: int) -> Iterator[list[T]]:
    """Rows, so many at a time as are prepared together.

    Args:
        rows: Of a list.
        largest: How many at most.
    """
    wave: list[T] = []
    size = min(_FIRST_WAVE, largest)
    for row in rows:
        wave.append(row)
        if len(wave) == size:
            yield wave
            wave, size = [], min(_GROWTH * size, largest)
    if wave:
        yield wave


@dataclass
class Passes:
    """The passes of one run.

    Attributes:
        ledger: Of the run; what fails is recorded here, what is finished by the workers.
        lease: That this driver is the only one.
        board: Told by the workers what they are at.
        telemetry: How the run is observed.
        attempts: Tries of an item, at most.
    """

    ledger: Ledger
    lease: Lease
    board: Board
    telemetry: Telemetry
    attempts: int
    metrics: RunMetrics = field(init=False)
    tracer: Tracer = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is told yet."""
        self.metrics = RunMetrics(self.telemetry.run)
        self.tracer = Tracer(self.telemetry.run, self.telemetry.traces)

    def run(self, batches: Sequence[Sequence[StageItem]], pools: Sequence[Pool]) -> Iterator[Any]:
        """Results of batches that go through pools, as they finish; raises as ``data.run`` does."""
        yield from run(batches, pools, self.board, self.telemetry)

    def failed(self, failure: ItemFailure) -> bool:
        """Record a failed try.

        Returns:
            Whether the item is to be tried again.

        Raises:
            RayreelError: If another driver has taken over.
        """
        self.lease.check()
        self.ledger.append(failed_entry(failure))
        again = failure.retryable and failure.attempt < self.attempts
        if again:
            self.metrics.retry(failure.error)
        return again

    def back_offs(self) -> Iterator[float]:
        """Seconds to wait before each further try."""
        yield from (*_BACK_OFF_S, *[_BACK_OFF_S[-1]] * self.attempts)[: self.attempts]

    def close(self) -> None:
        """Send what is left of the traces."""
        self.tracer.close()


def lost(item: StageItem, stage: str) -> ItemFailure:
    """The failure of an item that no worker has told of.

    Args:
        item: That was sent out.
        stage: Name of its pass.
    """
    return ItemFailure(
        item_id=item.item_id,
        stage=stage,
        error="WorkerLost",
        message="its worker was lost, and with it what became of it",
        seed=item.seed,
        attempt=item.attempt,
        seconds=0.0,
        retryable=True,
    )


def failed_entry(failure: ItemFailure) -> LedgerEntry:
    """Line of the ledger for a try that failed."""
    return LedgerEntry(
        item_id=failure.item_id,
        status="failed",
        attempt=failure.attempt,
        seconds={failure.stage: failure.seconds},
        seed=failure.seed,
        error=FailureRecord(
            stage=failure.stage,
            error=failure.error,
            message=failure.message,
            retryable=failure.retryable,
        ),
        worker=worker_name(),
        finished_at=datetime.now(UTC),
    )
