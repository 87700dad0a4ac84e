"""Runs stages on Ray Data: batches go through pools of actors, and results come out as they finish.

A row of Ray Data is a batch, and every row a block of its own, so that a free actor takes the next
batch, whoever made it.
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from rayreel.cluster.board import Board
from rayreel.cluster.metrics import RunMetrics
from rayreel.cluster.pool import Pool
from rayreel.cluster.stalls import looked_after
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.worker import Stop, Worker, packed, unpacked
from rayreel.errors import ClusterError
from rayreel.stages.base import ItemFailure, StageItem

# Silent workers are replaced long before; this is for a cluster that has lost its nodes for good.
_STALL_S = 6 * 3600
# Batches that wait at an actor: more would wait there while others are idle.
_IN_FLIGHT = 2
# Of a node that a pool is bound to, so that any number of actors fits.
_NODE_SHARE = 0.001

log = logging.getLogger(__name__)


def run(
    batches: Sequence[Sequence[StageItem]],
    pools: Sequence[Pool],
    board: Board,
    telemetry: Telemetry,
) -> Iterator[Any]:
    """Send batches of items through pools of actors.

    Args:
        batches: Work; the items of a batch share calls.
        pools: In order.
        board: Told by the workers what they are at.
        telemetry: How the run is observed.

    Yields:
        One result per item, as they finish.

    Raises:
        ClusterError: If a stage cannot start or is broken, or if the cluster is lost.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = _STALL_S
    # Every row of an actor's output becomes a block.
    context.target_max_block_size = 1
    _quieten()
    dataset: Dataset = ray.data.from_items(
        [{"items": packed(batch)["items"][0]} for batch in batches],
        override_num_blocks=len(batches),
    )
    for index, pool in enumerate(pools):
        following = pools[index + 1] if index + 1 < len(pools) else None
        hand_on = following.batch_size if following else None
        dataset = _through(dataset, pool, (pool, board, telemetry, hand_on))
    queues = _Queues(RunMetrics(telemetry.run), board, pools, sum(map(len, batches)))
    try:
        with looked_after(board, [pool.name for pool in pools], queues.tell):
            # Prefetching would hold every result back until the next one is there.
            for block in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                for result in unpacked(block):
                    yield _checked(result)
    except ExecutionTimeoutError as error:
        hours = _STALL_S // 3600
        raise ClusterError(f"nothing has happened for {hours} hours: {error}") from error
    except RayError as error:
        said = " ".join(str(error).split())
        raise ClusterError(
            "the cluster lost the job; what is finished is kept, and a rerun goes on from there. "
            f"Ray says: {said}"
        ) from error
    finally:
        board.clear()


def _checked(result: StageItem | ItemFailure | Stop) -> StageItem | ItemFailure:
    if isinstance(result, Stop):
        if result.details:
            log.error("%s\n%s", result.reason, result.details)
        raise ClusterError(result.reason)
    return result


@dataclass(frozen=True)
class _Queues:
    """How many items wait for each pool, or are in it."""

    metrics: RunMetrics
    board: Board
    pools: Sequence[Pool]
    items: int

    def tell(self) -> None:
        ended, before = self.board.ended(), self.items
        for pool in self.pools:
            after = ended.get(pool.name, 0)
            self.metrics.queue(pool.name, max(0, before - after))
            before = after


def _through(dataset: Dataset, pool: Pool, arguments: tuple[Any, ...]) -> Dataset:
    # A class of its own, so that Ray's dashboard and errors name the pool.
    actor = type(pool.name, (Worker,), {})
    with warnings.catch_warnings():
        # There are no named parameters for restarts and retries yet.
        warnings.filterwarnings("ignore", "`ray_remote_args` is", RayDeprecationWarning)
        return dataset.map_batches(
            actor,
            fn_constructor_args=arguments,
            compute=ActorPoolStrategy(
                min_size=pool.replicas,
                max_size=pool.max_replicas,
                max_tasks_in_flight_per_actor=_IN_FLIGHT,
            ),
            batch_size=None,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            # The board knows which item takes workers along, and how often.
            max_restarts=-1,
            max_task_retries=-1,
            resources={pool.node: _NODE_SHARE} if pool.node else None,
        )


def _quieten() -> None:
    """Keep Ray Data's warnings on the terminal, and leave everything else to its log file."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.addFilter(_is_warning)
    # It warns that its progress bars are off: a run has one of its own.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def _is_warning(record: logging.LogRecord) -> bool:
    """What is worse is raised as well, and reported in a sentence."""
    return record.levelno == logging.WARNING
