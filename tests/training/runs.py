"""Training runs of the tiny model, in this process."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.training.run import TrainJob, train
from rayreel.training.tracking import read_metrics

Line = dict[str, Any]

# What a step measures of the machine.
_TIMES = {"seconds", "wait_seconds", "tokens_per_s", "flops_per_s", "utilisation", "time"}
_MACHINE = {*_TIMES, "memory_gib"}


def train_spec(dataset: Path, output: Path | str, **values: Any) -> TrainSpec:
    """A run of six steps that saves every third one; ``values`` win, also within its parts."""
    given: dict[str, Any] = {
        "dataset": str(dataset),
        "output": str(output),
        "optimization": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "schedule": "constant",
        },
        "checkpoints": {"interval": 3},
    }
    for name, value in values.items():
        inner = given.get(name)
        given[name] = {**inner, **value} if isinstance(inner, dict) else value
    return TrainSpec.model_validate(given)


def trained(spec: TrainSpec, *, stop_at: int | None = None) -> list[Line]:
    """Lines of the metrics of a run that trained in this process.

    Args:
        spec: Of the run.
        stop_at: The step that it is interrupted in; what a checkpoint has is kept then.
    """

    def told(line: Any) -> None:
        if line["step"] == stop_at:
            raise Interrupted

    try:
        train(TrainJob(spec=spec), told=told)
    except Interrupted:
        assert stop_at is not None
    return lines(spec.output)


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A run was stopped by its test."""


def lines(output: str) -> list[Line]:
    """Lines of the metrics of a run, without what they measure of the machine."""
    return [
        {name: value for name, value in line.items() if name not in _MACHINE}
        for line in read_metrics(Storage(output))
    ]


def losses(of: Iterable[Line]) -> list[float]:
    return [line["loss"] for line in of]
