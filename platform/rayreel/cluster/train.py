"""The training loop on Ray Train: processes that are started anew when one of them is lost.

What a run goes on from are its own checkpoints; Ray is told of none.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayreel.cluster.connect import capacity
from rayreel.config.train import WorkersSpec
from rayreel.data.hashing import content_hash
from rayreel.errors import ClusterError, RayreelError
from rayreel.training.group import BACKENDS, TIMEOUT
from rayreel.training.run import TrainJob, train
from rayreel.training.validation import ValidationTask
from rayreel.training.validations import Begin, Results, begin_here

_POLL_S = 0.5
_TRIES = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Seats:
    """What a run takes of the cluster.

    Attributes:
        least: Workers, at least.
        most: Workers, at most.
        cpus: Of each.
        gpus: Of each.
        beside: Whether there is room for validation beside all of them.
    """

    least: int
    most: int
    cpus: float
    gpus: float
    beside: bool

    @property
    def resources(self) -> dict[str, float]:
        """Of one worker, as Ray names them."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def seats(spec: WorkersSpec, *, device: str) -> Seats:
    """Check that the connected cluster can hold a run.

    Args:
        spec: How many workers, and what each takes.
        device: That they compute on.

    Raises:
        ClusterError: If even the least number does not fit.
    """
    least, most = spec.bounds
    gpus = (1.0 if device == "cuda" else 0.0) if spec.gpus is None else spec.gpus
    free = capacity()
    fit = int(min(free.cpus / spec.cpus, free.gpus / gpus if gpus else least + most))
    if fit < least:
        raise ClusterError(
            f"{least} workers of {spec.cpus:g} CPUs and {gpus:g} GPUs do not fit: the cluster has "
            f"{free.cpus:g} CPUs and {free.gpus:g} GPUs free, which hold {fit}; set "
            f"workers.num_workers to {fit}, or workers.cpus"
        )
    left_cpus, left_gpus = free.cpus - most * spec.cpus, free.gpus - most * gpus
    return Seats(
        least=least,
        most=most,
        cpus=spec.cpus,
        gpus=gpus,
        beside=left_cpus >= 1 and left_gpus >= gpus,
    )


def train_on_cluster(
    job: TrainJob, taken: Seats, told: Callable[[Mapping[str, Any]], None]
) -> None:
    """Train on the connected cluster, to the end.

    Args:
        job: The run.
        taken: What ``seats`` said.
        told: Given each line of the metrics, from a thread.

    Raises:
        RayreelError: That a worker has raised: it would come again.
        ClusterError: If more workers were lost than the spec allows.
        KeyboardInterrupt: If the user has asked to stop.
    """
    # Losses are noticed, and the end too, when the workers are asked.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    inbox = _inbox()
    workers = taken.least if taken.least == taken.most else (taken.least, taken.most)
    with tempfile.TemporaryDirectory() as folder, _followed(inbox, told):
        # Its context has no public name.
        trainer: Any = TorchTrainer(
            _work,
            train_loop_config={"job": job, "inbox": inbox, "seats": taken},
            torch_config=TorchConfig(
                backend=BACKENDS["cuda" if taken.gpus else "cpu"],
                timeout_s=int(TIMEOUT.total_seconds()),
            ),
            scaling_config=ScalingConfig(
                num_workers=workers,  # type: ignore[arg-type] # two numbers are legal
                use_gpu=bool(taken.gpus),
                resources_per_worker=taken.resources,
            ),
            run_config=RunConfig(
                # Of Ray's own notes, which nobody reads again.
                name="train",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=job.spec.workers.max_failures),
            ),
        )
        # A driver that was killed leaves its workers' places reserved for three minutes. They are
        # this run's again if it has the same id; Ray would give each driver another one.
        identity = content_hash("training run", job.spec.output)
        object.__setattr__(trainer.train_run_context, "run_id", identity)
        try:
            trainer.fit()
        except SystemExit as error:
            # How Ray ends the process after Ctrl-C, as if all was well.
            raise KeyboardInterrupt from error
        except TrainingFailedError as error:
            raise ClusterError(
                f"training was lost with its workers more than {job.spec.workers.max_failures} "
                f"times (workers.max_failures); the same command goes on from the last checkpoint. "
                f"The last loss: {_reason(error)}"
            ) from error
        failure, ended = ray.get(inbox.outcome.remote())
    if failure:
        raise failure
    if not ended:
        raise KeyboardInterrupt


def _inbox() -> Any:  # noqa: ANN401 - Ray's actors have no type
    """Start an inbox on this process's node: it must not be lost with a worker's."""
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True),
    }
    return ray.remote(_Inbox).options(**options).remote()


class _Inbox:
    """The actor that workers tell what they do; the driver empties it."""

    def __init__(self) -> None:
        self._lines: list[Mapping[str, Any]] = []
        self._failure: RayreelError | None = None
        self._ended = False

    def tell(self, line: Mapping[str, Any]) -> None:
        self._lines.append(line)

    def take(self) -> list[Mapping[str, Any]]:
        lines, self._lines = self._lines, []
        return lines

    def fail(self, failure: RayreelError) -> None:
        self._failure = failure

    def end(self) -> None:
        self._ended = True

    def outcome(self) -> tuple[RayreelError | None, bool]:
        return self._failure, self._ended


def _work(config: dict[str, Any]) -> None:
    """What each worker does, from the last checkpoint on."""
    job, inbox, taken = config["job"], config["inbox"], config["seats"]
    torch.set_num_threads(max(1, int(taken.cpus)))
    failure, ended = ray.get(inbox.outcome.remote())
    if failure or ended:
        # A worker that was lost does not make this come out differently.
        return
    try:
        train(job, begin=_begin(job, taken), told=inbox.tell.remote)
    except RayreelError as error:
        ray.get(inbox.fail.remote(error))
        # The others may wait for this one: Ray ends them all.
        raise
    if ray.train.get_context().get_world_rank() == 0:
        ray.get(inbox.end.remote())


def _begin(job: TrainJob, taken: Seats) -> Begin:
    """Where validation is done: beside training if there is room."""
    where = job.spec.validation.where
    if where == "worker" or (where == "auto" and not taken.beside):
        return begin_here

    def begin(task: ValidationTask) -> "Future[Results]":
        work = ray.remote(_validate).options(
            num_cpus=1,
            num_gpus=1 if taken.gpus else 0,
            max_retries=_TRIES,
            # Not among the resources of the worker that begins it.
            scheduling_strategy="DEFAULT",
        )
        future: Future[Results] = work.remote(task).future()
        return future

    return begin


def _validate(task: ValidationTask) -> Results:
    return task()


@contextmanager
def _followed(inbox: Any, told: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:  # noqa: ANN401 - Ray's actors have no type
    """Pass on what workers tell until the block ends, and what is left then."""
    over = threading.Event()

    def pass_on() -> None:
        try:
            lines = ray.get(inbox.take.remote())
        except RayError as error:
            log.warning("what workers tell cannot be read: %s", type(error).__name__)
            return
        for line in lines:
            told(line)

    def follow() -> None:
        while not over.wait(_POLL_S):
            pass_on()

    thread = threading.Thread(target=follow, name="training progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        pass_on()


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which is the error itself."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
