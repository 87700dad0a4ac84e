"""Runs stages on Ray Data: rows go through pools of actors, and come out as they finish."""

import logging
import math
import pickle
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from rayreel.cluster.connect import Capacity
from rayreel.data.ledger import worker_name
from rayreel.errors import ClusterError, RayreelError
from rayreel.stages.base import RenderItem, Result, Stage, run_stage

# More blocks than this cost more than they balance: Ray spends some 15 ms on each.
_MAX_BLOCKS = 10_000
_STALL_S = 1800
# A batch that takes its process along, out of memory for one, is not tried for ever, nor is a
# process that dies while it starts.
_MAX_RESTARTS = 4
_MAX_RETRIES = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Actors that hold the same stages.

    Attributes:
        stages: What each actor does to a batch, in order.
        replicas: Actors.
        batch_size: Items of one call.
        cpus: Logical CPUs of one actor; also how many threads it computes with.
        gpus: GPUs of one actor.
    """

    stages: tuple[Stage[Any], ...]
    replicas: int
    batch_size: int
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        """The stages' names, joined."""
        return "+".join(stage.name for stage in self.stages)


def preflight(pools: Sequence[Pool], free: Capacity) -> None:
    """Refuse a job that would wait for ever.

    Raises:
        ClusterError: Naming the pool that does not fit any more, and what is missing.
    """
    cpus, gpus = free.cpus, free.gpus
    for pool in pools:
        actor = f"({pool.cpus:g} CPU, {pool.gpus:g} GPU)"
        if not any(cpu >= pool.cpus and gpu >= pool.gpus for cpu, gpu in free.nodes):
            raise ClusterError(
                f"no node of the cluster can hold stage {pool.name}: an actor takes {actor}; "
                "lower 'cpus' or 'gpus' of the stage"
            )
        cpus -= pool.replicas * pool.cpus
        gpus -= pool.replicas * pool.gpus
        if cpus < -1e-6 or gpus < -1e-6:
            raise ClusterError(
                f"the cluster cannot hold stage {pool.name}: {pool.replicas} x {actor} after the "
                f"stages before it, of {free.cpus:g} CPU and {free.gpus:g} GPU free; lower "
                "'replicas', 'cpus' or 'gpus' of the stage"
            )


@dataclass(frozen=True)
class _Stop:
    """What travels in place of items when a stage is broken: it ends the job.

    Attributes:
        reason: Which stage, and what is wrong.
        details: Traceback of an error that is not one of ours.
    """

    reason: str
    details: str


def run(items: Sequence[RenderItem], pools: Sequence[Pool]) -> Iterator[Result]:
    """Send items through pools of actors.

    Args:
        items: Work, like items side by side: a batch is a run of neighbours.
        pools: In order.

    Yields:
        One result per item, as they finish.

    Raises:
        ClusterError: If a stage cannot start or is broken, if an actor is lost more often than it
            is replaced, or if nothing has happened for half an hour.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = _STALL_S
    _quieten()
    rows_per_block = max(pools[0].batch_size, math.ceil(len(items) / _MAX_BLOCKS))
    dataset: Dataset = ray.data.from_items(
        [{"item": pickle.dumps(item)} for item in items],
        override_num_blocks=math.ceil(len(items) / rows_per_block),
    )
    for pool in pools:
        dataset = _through(dataset, pool)
    try:
        # Prefetching would hold every result back until the next one is there.
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            for data in batch["item"]:
                yield _result(data)
    except ExecutionTimeoutError as error:
        raise ClusterError(f"nothing has happened for {_STALL_S // 60} minutes: {error}") from error
    except RayError as error:
        said = " ".join(str(error).split())
        raise ClusterError(
            f"a worker was lost, and lost again when it was replaced; what is finished is kept, "
            f"and a rerun goes on from there. Ray says: {said}"
        ) from error


def _result(data: bytes) -> Result:
    result: Result | _Stop = pickle.loads(data)
    if isinstance(result, _Stop):
        if result.details:
            log.error("%s\n%s", result.reason, result.details)
        raise ClusterError(result.reason)
    return result


def _through(dataset: Dataset, pool: Pool) -> Dataset:
    # A class of its own, so that Ray's dashboard and errors name the pool.
    actor = type(pool.name, (_Actor,), {})
    with warnings.catch_warnings():
        # There are no named parameters for restarts and retries yet.
        warnings.filterwarnings("ignore", "`ray_remote_args` is", RayDeprecationWarning)
        return dataset.map_batches(
            actor,
            fn_constructor_args=(pool,),
            compute=ActorPoolStrategy(size=pool.replicas),
            batch_size=pool.batch_size,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RETRIES,
        )


class _Actor:
    """Holds the stages of a pool in one process.

    What goes wrong for all items alike is a value too: an exception would reach the terminal as
    Ray's traceback.
    """

    def __init__(self, pool: Pool) -> None:
        torch.set_num_threads(max(1, int(pool.cpus)))
        self.stages = pool.stages
        self.broken: _Stop | None = None
        for stage in self.stages:
            try:
                stage.setup()
            except Exception as error:  # noqa: BLE001 - the boundary of the job; _stop keeps it
                self.broken = _stop(f"stage {stage.name} cannot start", error)
                return

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = self._work([pickle.loads(data) for data in batch["item"]])
        return {"item": np.array([pickle.dumps(result) for result in results], dtype=object)}

    def _work(self, results: list[Any]) -> list[Any]:
        if self.broken:
            return [self.broken]
        for stage in self.stages:
            try:
                results = run_stage(stage, results)
            except Exception as error:  # noqa: BLE001 - as above
                return [_stop(f"stage {stage.name} is broken", error)]
        return results


def _stop(what: str, error: Exception) -> _Stop:
    ours = isinstance(error, RayreelError)
    said = str(error) if ours else f"{type(error).__name__}: {error}"
    return _Stop(
        reason=f"{what} on {worker_name()}: {said}",
        details="" if ours else "".join(traceback.format_exception(error)),
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
