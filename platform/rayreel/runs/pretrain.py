"""A drawn world to weights: takes the run directory, and trains what is left of one network."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rayreel.config.load import read_mapping
from rayreel.config.pretrain import PretrainSpec
from rayreel.data.lease import Lease
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.runs.opened import open_directory
from rayreel.training.checkpoints import Checkpoints
from rayreel.training.group import Group
from rayreel.training.optimizers import check_schedule
from rayreel.training.pretraining.loop import pretrain
from rayreel.training.pretraining.parts import make_part
from rayreel.training.tracking import TrainingProgress

_RUN = "run.json"


def pretrain_part(spec: PretrainSpec) -> str:
    """Train what is left of a run, with progress.

    Args:
        spec: With absolute paths.

    Returns:
        What it came to, in a line.

    Raises:
        SpecError: If the spec is wrong, or the directory holds a run of another one.
        CheckpointError: If weights that it builds on are.
        RayreelError: If another driver is at work, or a loss is not finite.
        StorageError: If the run directory does not answer any more.
    """
    check_schedule(spec.optimization)
    architecture = read_mapping(Path(spec.architecture))
    part = make_part(spec, architecture)
    storage, start = open_directory(spec.output), time.monotonic()
    last: dict[str, Any] = {}
    with Lease(storage):
        _claim(storage, spec, architecture)
        done = Checkpoints(storage, _ALONE, 0).latest() or 0
        with TrainingProgress(spec.steps, done=done) as progress:

            def told(line: Mapping[str, Any]) -> None:
                last.update(line)
                progress.update(line)

            pretrain(spec, part, told)
    loss = f", loss {last['loss']:.4g}" if last else ""
    seconds = time.monotonic() - start
    what = f"{spec.steps} steps of {spec.part}{loss}" if spec.steps else f"{spec.part} is fitted"
    return f"{what} ({seconds:.0f} s)\n{storage.uri}"


_ALONE = Group(rank=0, world=1, device=torch.device("cpu"))


def _claim(storage: Storage, spec: PretrainSpec, architecture: Mapping[str, Any]) -> None:
    """Write ``run.json``, unless the directory holds a run that cannot go on as this one."""
    identity = {
        "spec": spec.model_dump(mode="json", exclude={"output", "architecture"}),
        "architecture": architecture,
    }
    known = json.loads(storage.read_bytes(_RUN))
    if known.get("identity", identity) != json.loads(json.dumps(identity)):
        raise SpecError(
            f"the run in {storage.uri} is one of another spec; take another output, or remove it"
        )
    storage.write_bytes(_RUN, json.dumps({**known, "identity": identity}, indent=2).encode())
