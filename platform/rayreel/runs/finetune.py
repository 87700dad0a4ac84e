"""Dataset to adapter: takes the run directory, trains what is left, and draws what came of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rayreel.cluster.connect import capacity, connected
from rayreel.cluster.train import seats, train_on_cluster
from rayreel.config.train import TrainSpec
from rayreel.runs.training.opened import TrainingRun, check_training, open_training
from rayreel.runs.training.report import write_report
from rayreel.training.devices import training_device
from rayreel.training.group import joined
from rayreel.training.run import TrainJob, train
from rayreel.training.saving import weights_name
from rayreel.training.tracking import TrainingProgress


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a run came to.

    Attributes:
        steps: That it has done, of all calls together.
        before: Of these, those before this call.
        loss: Of the last step of this call.
        seconds: How long this call took.
        weights: What was learned, as a file.
        page: To look at.
    """

    steps: int
    before: int
    loss: float | None
    seconds: float
    weights: str
    page: str

    def __str__(self) -> str:
        """One line."""
        if self.steps == self.before:
            return f"{self.steps} steps: nothing new"
        told = "" if self.loss is None else f", loss {self.loss:.4g}"
        new = self.steps - self.before
        return f"{self.steps} steps, {new} of them now{told} ({self.seconds:.0f} s)"


def finetune(spec: TrainSpec) -> TrainSummary:
    """Train what is left of a run, in this process or on a cluster.

    Args:
        spec: With absolute paths.

    Returns:
        What it came to.

    Raises:
        SpecError: If the spec is wrong, or does not fit what the run directory holds.
        CheckpointError: If weight files are.
        ClusterError: If the cluster cannot hold the run, or lost it too often.
        RayreelError: If a loss is not finite.
        StorageError: If the run directory does not answer any more.
    """
    if not spec.workers.bounds[1]:
        with open_training(spec) as run:
            return _finished(run, lambda told: train(run.job, told=told))
    with connected():
        gpus = capacity().gpus
        device = training_device(spec.acceleration, cluster_gpus=gpus)
        taken = seats(spec.workers, device=device.name)
        with open_training(spec, cluster_gpus=gpus) as run:
            return _finished(run, lambda told: train_on_cluster(run.job, taken, told))


def describe(spec: TrainSpec) -> str:
    """What a run would do, once everything about it is checked; raises as ``finetune`` does."""
    files, data, job = check_training(spec)
    optimization = spec.optimization
    steps = -(-len(data.shapes) // optimization.batch_size)
    tokens = sum(shape.tokens for shape in data.shapes)
    return (
        f"{len(data.shapes)} samples of {len({shape.key for shape in data.shapes})} shapes, "
        f"{tokens} tokens; {optimization.steps} steps of {optimization.batch_size} samples, "
        f"{optimization.steps / steps:.1f} epochs; {spec.mode} of "
        f"{files.transformer.num_layers} blocks; {len(job.requests)} validation clips: all of it "
        "is valid"
    )


def finetune_launched(spec: TrainSpec) -> TrainSummary | None:
    """Train as one of the processes that ``torchrun`` or ``accelerate launch`` have started.

    Args:
        spec: With absolute paths; what it says of workers does not count.

    Returns:
        What it came to, on the first process.

    Raises:
        RayreelError: As ``finetune`` does.
    """
    device = training_device(spec.acceleration)
    with joined(device.name) as group:
        if group.rank:
            if group.share(False):
                train(TrainJob(spec=spec))
            return None
        with open_training(spec) as run:
            group.share(run.done < spec.optimization.steps)
            return _finished(run, lambda told: train(run.job, told=told))


def _finished(
    run: TrainingRun, work: Callable[[Callable[[Mapping[str, Any]], None]], object]
) -> TrainSummary:
    """Do the work with progress; whatever came of it is drawn."""
    start, before, steps = time.monotonic(), run.done, run.job.spec.optimization.steps
    last: dict[str, Any] = {}
    try:
        if before < steps:
            with TrainingProgress(steps, done=before) as progress:

                def told(line: Mapping[str, Any]) -> None:
                    last.update(line)
                    progress.update(line)

                work(told)
    finally:
        page = write_report(run.storage.uri)
    return TrainSummary(
        steps=run.done,
        before=before,
        loss=last.get("loss"),
        seconds=time.monotonic() - start,
        weights=run.storage.join(weights_name(run.done)),
        page=page,
    )
