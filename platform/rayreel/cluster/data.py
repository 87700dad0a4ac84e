"""Runs stages on Ray Data: rows go through pools of actors, and come out as they finish."""

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from rayreel.cluster.connect import Capacity
from rayreel.errors import ClusterError
from rayreel.stages.base import RenderItem, Result, Stage, run_stage

# More blocks than this cost more than they balance: Ray spends some 15 ms on each.
_MAX_BLOCKS = 10_000
_STALL_S = 1800

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

    stages: tuple[Stage, ...]
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
        cpus -= pool.replicas * pool.cpus
        gpus -= pool.replicas * pool.gpus
        if cpus < -1e-6 or gpus < -1e-6:
            raise ClusterError(
                f"the cluster cannot hold stage {pool.name}: {pool.replicas} x ({pool.cpus:g} CPU, "
                f"{pool.gpus:g} GPU) after the stages before it, of {free.cpus:g} CPU and "
                f"{free.gpus:g} GPU free; lower 'workers', or 'cpus' and 'gpus' of the stage"
            )


def run(items: Sequence[RenderItem], pools: Sequence[Pool]) -> Iterator[Result]:
    """Send items through pools of actors.

    Args:
        items: Work, like items side by side: a batch is a run of neighbours.
        pools: In order.

    Yields:
        One result per item, as they finish.

    Raises:
        ClusterError: If a stage cannot start, or an actor is lost more often than it is replaced.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = _STALL_S
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    rows_per_block = max(pools[0].batch_size, math.ceil(len(items) / _MAX_BLOCKS))
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"item": pickle.dumps(item)} for item in items],
        override_num_blocks=math.ceil(len(items) / rows_per_block),
    )
    for pool in pools:
        dataset = dataset.map_batches(
            _Actor,
            fn_constructor_args=(pool,),
            compute=ActorPoolStrategy(size=pool.replicas),
            batch_size=pool.batch_size,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            max_restarts=2,
            max_task_retries=2,
        )
    try:
        for row in dataset.iter_rows():
            yield pickle.loads(row["item"])
    except RayError as error:
        raise ClusterError(f"the job stopped: {_root_cause(error)}") from error


class _Actor:
    """Holds the stages of a pool in one process."""

    def __init__(self, pool: Pool) -> None:
        torch.set_num_threads(max(1, int(pool.cpus)))
        self.stages = pool.stages
        for stage in self.stages:
            stage.setup()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results: list[Result] = [pickle.loads(data) for data in batch["item"]]
        for stage in self.stages:
            results = run_stage(stage, results)
        return {"item": np.array([pickle.dumps(result) for result in results], dtype=object)}


def _root_cause(error: BaseException) -> str:
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"
