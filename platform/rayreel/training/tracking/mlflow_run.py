"""Runs at an MLflow server, from one process or from several that went on one after another."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from rayreel.config.train import MlflowSpec, TrainSpec
from rayreel.data.storage import Storage
from rayreel.training.tracking.service_ids import kept_id
from rayreel.training.tracking.tracker import Status, scalars

# The most that a server takes at a time, and of one parameter.
_MOST_METRICS = 1000
_MOST_PARAMETERS = 100
_LONGEST = 500
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MlflowRun:
    """A run; steps that the server has already are not sent again."""

    def __init__(self, spec: TrainSpec, settings: MlflowSpec, storage: Storage) -> None:
        """Begin the run, or go on with it.

        Args:
            spec: What is trained.
            settings: Where to.
            storage: The run directory.

        Raises:
            Exception: Whatever the package raises where it cannot.
        """
        import mlflow  # noqa: PLC0415 - an extra, which takes seconds
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        self._metric, self._param = Metric, Param
        self._client = mlflow.MlflowClient(tracking_uri=settings.uri)
        self._id = kept_id(storage, "mlflow", lambda: self._created(spec, settings))
        self._client.update_run(self._id, status="RUNNING")
        history = self._client.get_metric_history(self._id, "train/loss")
        self._sent = max((metric.step for metric in history), default=0)

    def lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Send steps."""
        metrics = (
            self._metric(name, value, round(line["time"] * 1000), line["step"])
            for line in lines
            if line["step"] > self._sent
            for name, value in scalars(line).items()
        )
        while some := list(islice(metrics, _MOST_METRICS)):
            self._client.log_batch(self._id, metrics=some)
        self._sent = max(self._sent, lines[-1]["step"])

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Send clips as artifacts."""
        for path in files.values():
            self._client.log_artifact(self._id, str(path), f"validation/step-{step:08d}")

    def close(self, status: Status) -> None:
        """End the run."""
        self._client.set_terminated(self._id, _STATUSES[status])

    def _created(self, spec: TrainSpec, settings: MlflowSpec) -> str:
        client, name = self._client, settings.experiment
        experiment = client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else client.create_experiment(name)
        run_name = spec.output.rstrip("/").rpartition("/")[2]
        started = round(time.time() * 1000)
        created: str = client.create_run(number, started, run_name=run_name).info.run_id
        values = spec.model_dump(mode="json")
        parameters = (self._param(key, text[:_LONGEST]) for key, text in _flat(values))
        while some := list(islice(parameters, _MOST_PARAMETERS)):
            client.log_batch(created, params=some)
        client.log_text(created, yaml.safe_dump(values, sort_keys=False), "spec.yaml")
        return created


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Fields of a spec and of what it holds, as ``optimization.steps``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)
