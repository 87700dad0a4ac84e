"""All that follows a run, as one."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.training.tracking.metric_log import MetricLog
from rayreel.training.tracking.mlflow_run import MlflowRun
from rayreel.training.tracking.remote import Remote
from rayreel.training.tracking.tensorboard import TensorBoard
from rayreel.training.tracking.tracker import Status, Tracker
from rayreel.training.tracking.weights_biases import WandbRun


class Trackers:
    """Several trackers behind the methods of one; as a context, it closes them."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        """Put them together.

        Args:
            trackers: Told in this order, and closed in the other.
        """
        self._all = tuple(trackers)

    def __enter__(self) -> Self:
        """Give the trackers themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them, with how the block ended."""
        if error is None:
            self.close("finished")
        else:
            self.close("failed" if isinstance(error, Exception) else "stopped")

    def log(self, line: Mapping[str, Any]) -> None:
        """Take in an optimiser step: a line of the metrics."""
        for tracker in self._all:
            tracker.log(line)

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Take in validation clips by name; their files may be gone afterwards."""
        for tracker in self._all:
            tracker.clips(step, files)

    def cut(self, step: int) -> None:
        """Keep what there is up to a step that the run will be able to go on from.

        Raises:
            StorageError: If the run directory does not answer.
        """
        for tracker in self._all:
            tracker.cut(step)

    def close(self, status: Status) -> None:
        """End all of them, even if one of them fails to.

        Raises:
            StorageError: If the run directory does not answer.
        """
        with ExitStack() as stack:
            for tracker in self._all:
                stack.callback(tracker.close, status)


def trackers_for(spec: TrainSpec, storage: Storage, step: int) -> Trackers:
    """All that follows a run, for its first process.

    What the run directory has of later steps is removed; servers are not sent again what they have.

    Args:
        spec: What is trained.
        storage: The run directory.
        step: Optimiser steps that are done.

    Raises:
        StorageError: If the run directory does not answer.
    """
    metrics = MetricLog(storage)
    metrics.resume(step)
    trackers: list[Tracker] = [metrics, TensorBoard(storage, step)]
    wandb, mlflow = spec.tracking.wandb, spec.tracking.mlflow
    if wandb:
        trackers.append(Remote("Weights & Biases", partial(WandbRun, spec, wandb, storage)))
    if mlflow:
        trackers.append(Remote("MLflow", partial(MlflowRun, spec, mlflow, storage)))
    return Trackers(trackers)


def check_tracking(spec: TrainSpec) -> None:
    """Make sure that the trackers of a spec can be used, before any work.

    Args:
        spec: What is to be trained.

    Raises:
        SpecError: If an extra is not installed, there is no key, or an offline run has no disk.
    """
    wandb, mlflow = spec.tracking.wandb, spec.tracking.mlflow
    if mlflow and not find_spec("mlflow"):
        raise _lacking("mlflow")
    if not wandb:
        return
    if not find_spec("wandb"):
        raise _lacking("wandb")
    if wandb.mode == "offline":
        if Storage(spec.output).local_path("wandb") is None:
            raise SpecError(
                f"tracking.wandb.mode offline records on disk, and {spec.output} is not on one; "
                "set mode: online, or an output that is a folder"
            )
    elif not _has_key():
        raise SpecError(
            "tracking.wandb has no key; set WANDB_API_KEY, run `wandb login`, or set "
            "tracking.wandb.mode: offline"
        )


def _lacking(extra: str) -> SpecError:
    return SpecError(
        f"tracking.{extra} needs a package that is not installed; expected "
        f"`pip install 'rayreel[{extra}]'`, or a spec without tracking.{extra}"
    )


def _has_key() -> bool:
    import wandb  # noqa: PLC0415 - an extra, which takes seconds

    return bool(wandb.login(prompt=False, verify=False))
