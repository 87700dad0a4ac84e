"""A training run in use: checked as a whole, and nobody else at it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.train import TrainSpec
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.lease import Lease
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.requests.models import checked_model
from rayreel.runs.opened import open_directory
from rayreel.runs.run_file import common_facts
from rayreel.runs.training.validation_rows import validation_requests
from rayreel.training.checkpoints import Checkpoints
from rayreel.training.dataset import TrainingData
from rayreel.training.devices import training_device
from rayreel.training.group import Group
from rayreel.training.model import check_trainable
from rayreel.training.optimizers import check_schedule
from rayreel.training.run import TrainJob
from rayreel.training.teacher import teacher_request
from rayreel.training.tracking import check_tracking

_RUN = "run.json"

# What decides about the weights; the rest of a spec may change while a run goes on.
_DECIDES = ("mode", "lora", "start", "strategy", "timesteps", "distillation", "seed")
_MAY_CHANGE = {"steps", "micro_batch"}


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What is open while a run trains.

    Attributes:
        job: The spec, and its validation clips.
        files: Its model.
        data: Its dataset.
        storage: Its directory.
    """

    job: TrainJob
    files: ModelFiles
    data: TrainingData
    storage: Storage

    @property
    def done(self) -> int:
        """Steps that need not be done again."""
        alone = Group(rank=0, world=1, device=torch.device("cpu"))
        return Checkpoints(self.storage, alone, 0).latest() or 0


@contextmanager
def open_training(spec: TrainSpec, *, cluster_gpus: float = 0) -> Iterator[TrainingRun]:
    """Check a spec, and hold its run directory until the block ends.

    Args:
        spec: With absolute paths.
        cluster_gpus: GPUs that workers may get.

    Raises:
        SpecError: If the spec is wrong, or the directory holds a run that learned something else.
        CheckpointError: If weight files are.
        RayreelError: If another driver is at work, or there is no such dataset.
    """
    files, data, job = check_training(spec, cluster_gpus=cluster_gpus)
    storage = open_directory(spec.output)
    with Lease(storage):
        _claim(storage, spec, files, data)
        yield TrainingRun(job=job, files=files, data=data, storage=storage)


def check_training(
    spec: TrainSpec, *, cluster_gpus: float = 0
) -> tuple[ModelFiles, TrainingData, TrainJob]:
    """Check a spec, its model and its dataset; reads no weight.

    Raises:
        SpecError: If something of it is wrong.
        CheckpointError: If weight files are.
        RayreelError: If there is no such dataset.
    """
    files = checked_model(spec.model)
    device = training_device(spec.acceleration, cluster_gpus=cluster_gpus)
    check_trainable(files, spec, torch.device(device.name))
    check_schedule(spec.optimization)
    check_tracking(spec)
    if spec.distillation:
        teacher_request(spec.distillation, files)
    data = TrainingData(spec.dataset, spec.strategy.streams())
    data.check(files)
    requests = validation_requests(
        spec,
        files,
        spec.validation.folder or ".",
        reference_scales=data.reference_scales if spec.strategy.streams().in_context else None,
    )
    return files, data, TrainJob(spec=spec, requests=requests)


def _claim(storage: Storage, spec: TrainSpec, files: ModelFiles, data: TrainingData) -> None:
    """Write ``run.json``, unless the directory holds a run that cannot go on as this one."""
    identity = _identity(spec, files, data)
    known = json.loads(storage.read_bytes(_RUN))
    before = known.get("identity", identity)
    if changed := [name for name, value in identity.items() if before.get(name) != value]:
        lines = "; ".join(
            f"{name} was {_short(before.get(name))}, and is {_short(identity[name])}"
            for name in changed
        )
        raise SpecError(
            f"the run in {storage.uri} learned something else: {lines}. Set them back to go on, or "
            "take another output"
        )
    facts = {**common_facts(spec, files), "identity": identity}
    if "started_at" in known:
        facts["started_at"] = known["started_at"]
    storage.write_bytes(_RUN, json.dumps(facts, indent=2).encode())


def _identity(spec: TrainSpec, files: ModelFiles, data: TrainingData) -> dict[str, Any]:
    """What a run must keep, by name."""
    values = spec.model_dump(mode="json")
    fast = spec.acceleration
    return {
        **{name: values[name] for name in _DECIDES},
        "optimization": {
            name: value for name, value in values["optimization"].items() if name not in _MAY_CHANGE
        },
        "quantization": fast.quantization,
        "model": files.fingerprint(("transformer", "text_projection", "loras")),
        "dataset": content_hash(canonical_json(data.info.model_dump(mode="json"))),
    }


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
