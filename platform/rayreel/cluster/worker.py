"""What an actor of a pool does with a row of Ray Data: a batch of items in, their results out."""

import pickle
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from rayreel.cluster.board import Board, Loss
from rayreel.cluster.pool import Pool
from rayreel.cluster.telemetry import Observer, Telemetry
from rayreel.data.ledger import worker_name
from rayreel.errors import RayreelError
from rayreel.stages.base import ItemFailure, StageItem, run_stage
from rayreel.stages.finished import finished_item
from rayreel.stages.life import Sign, listen

# Workers of one pool that may end, one after the other, before any of them has finished an item.
_MOST_STARTS = 5
_LEAST_SILENCE_S = 1.0

T = TypeVar("T")
Row = dict[str, Any]
Results = list[StageItem | ItemFailure]


@dataclass(frozen=True)
class Stop:
    """What travels in place of items when a stage is broken: it ends the job.

    Attributes:
        reason: Which stage, and what is wrong.
        details: Traceback of an error that is not one of ours.
    """

    reason: str
    details: str = ""


def packed(items: Iterable[object]) -> Row:
    """A row of Ray Data that holds items."""
    return {"items": np.array([pickle.dumps(list(items))], dtype=object)}


def unpacked(row: Row) -> list[Any]:
    """The items of all rows of a block."""
    return [item for data in row["items"] for item in pickle.loads(data)]


class Worker:
    """Holds the stages of a pool in one process.

    What goes wrong for all items alike is a value too: an exception would reach the terminal as
    Ray's traceback.
    """

    def __init__(self, pool: Pool, board: Board, telemetry: Telemetry, hand_on: int | None) -> None:
        """Load the stages.

        Args:
            pool: Which this is one of.
            board: Told of everything that is begun and ended.
            telemetry: Of the run.
            hand_on: Items of the batches that the next pool takes; ``None``: as they are.
        """
        torch.set_num_threads(max(1, int(pool.cpus)))
        self._pool, self._board, self._hand_on = pool, board, hand_on
        self._observer = Observer(telemetry)
        self._told = 0.0
        self._stage = "loading"
        self._broken = self._load(board.started(pool.name, worker_name()))
        listen(self._alive)

    def __call__(self, block: Row) -> Iterator[Row]:
        """Results of the items in a block, in batches for the next pool."""
        items = unpacked(block)
        if stops := [item for item in items if isinstance(item, Stop)] or self._broken:
            yield packed(stops)
            return
        ready, groups = self._grouped(items)
        results = {result.item_id: result for result in ready}
        for group in groups:
            done = self._work(group)
            if self._broken:
                yield packed(self._broken)
                return
            results |= {result.item_id: result for result in done}
        # Only now, and in the order of what came in: Ray counts what it has of a task whose worker
        # is lost, and takes the rest from the one that does it again.
        for part in _parts([results[item.item_id] for item in items], self._hand_on):
            yield packed(part)

    def _load(self, starts: int) -> list[Stop]:
        if starts > self._pool.max_replicas + _MOST_STARTS:
            said = f"{starts - 1} workers ended, each before it had finished anything"
            return [Stop(f"stage {self._pool.name} cannot work: {said}")]
        for stage in self._pool.stages:
            try:
                stage.setup()
            except Exception as error:  # noqa: BLE001 - the boundary of the job; Stop keeps it
                return [_stop(f"stage {stage.name} cannot start", error)]
        return []

    def _grouped(self, items: Results) -> tuple[Results, list[Results]]:
        """What has its result already, and batches to work on.

        Items that were at work when a worker was lost go one by one.
        """
        ready: Results = [item for item in items if isinstance(item, ItemFailure)]
        waiting = [item for item in items if not isinstance(item, ItemFailure)]
        losses = self._board.losses(self._pool.name, [item.item_id for item in waiting])
        groups: list[Results] = []
        for item in waiting:
            if item.item_id not in losses:
                continue
            if done := self._known(item, losses[item.item_id]):
                ready.append(done)
            else:
                groups.append([item])
        others: Results = [item for item in waiting if item.item_id not in losses]
        return ready, [*_parts(others, self._pool.batch_size), *groups]

    def _known(self, item: StageItem, loss: Loss) -> StageItem | ItemFailure | None:
        """Result of an item whose worker was lost: it was finished before, or it is to blame."""
        ledger = self._pool.ledger
        if ledger and (done := finished_item(ledger, item)):
            return done
        if loss != "alone":
            return None
        self._board.end(self._pool.name, [item.item_id])
        return ItemFailure(
            item_id=item.item_id,
            stage=self._pool.name,
            error="WorkerLost",
            message="its worker was lost while it was at this item alone",
            seed=item.seed,
            attempt=item.attempt,
            seconds=0.0,
            retryable=True,
        )

    def _work(self, items: Results) -> list[Any]:
        ids = [item.item_id for item in items]
        results: list[Any] = items
        self._board.begin(ids)
        for stage in self._pool.stages:
            self._stage = stage.name
            self._board.at(stage.name)
            try:
                with self._observer.batch(stage, results) as outcome:
                    outcome.extend(run_stage(stage, results))
            except Exception as error:  # noqa: BLE001 - as above
                self._broken = [_stop(f"stage {stage.name} is broken", error)]
                return []
            results = [*outcome]
        self._board.end(self._pool.name, ids)
        return results

    def _alive(self, _: Sign) -> None:
        now = time.monotonic()
        if now - self._told > _LEAST_SILENCE_S:
            self._told = now
            self._board.at(self._stage)


def _parts(items: Sequence[T], size: int | None) -> Iterator[list[T]]:
    """Neighbours, so many at a time; all of them without a size."""
    step = size or max(1, len(items))
    return (list(items[start : start + step]) for start in range(0, len(items), step))


def _stop(what: str, error: Exception) -> Stop:
    ours = isinstance(error, RayreelError)
    said = str(error) if ours else f"{type(error).__name__}: {error}"
    return Stop(
        reason=f"{what} on {worker_name()}: {said}",
        details="" if ours else "".join(traceback.format_exception(error)),
    )
