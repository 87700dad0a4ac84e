"""What a training run has written so far, for its report; it may go on meanwhile."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rayreel.config.train import TrainSpec
from rayreel.data.lease import FILE as DRIVER
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.training.saving import FOLDER as WEIGHTS
from rayreel.training.tracking import read_metrics
from rayreel.training.validation import FOLDER as VALIDATION
from rayreel.training.validation import ValidationResult, read_results

_RUN = "run.json"
_MOST_WEIGHTS = 12


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A run as it is now.

    Attributes:
        title: Name of its directory.
        spec: That it was last started with.
        versions: Of the packages that it was last started with.
        lines: Of the metrics, by step.
        clips: Results of each validated step, by step.
        weights: Names of the last files of weights, and their sizes in bytes.
        more_weights: Number of earlier ones.
        is_held: Whether somebody works on it, or has died there.
    """

    title: str
    spec: TrainSpec
    versions: dict[str, str]
    lines: list[dict[str, Any]]
    clips: dict[int, list[ValidationResult]]
    weights: dict[str, int]
    more_weights: int
    is_held: bool

    @property
    def step(self) -> int:
        """Optimiser steps that are done."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.spec.optimization.steps


def read_run(storage: Storage) -> ReportedRun:
    """Read what there is.

    Args:
        storage: The run directory.

    Raises:
        SpecError: If it is no directory of a training run.
        StorageError: If the storage does not answer.
    """
    facts = _facts(storage)
    names = storage.names(WEIGHTS)
    return ReportedRun(
        title=storage.uri.rstrip("/").rpartition("/")[2],
        spec=_spec(storage, facts),
        versions=facts.get("versions", {}),
        lines=read_metrics(storage),
        clips={step: read_results(storage, step) for step in _validated(storage)},
        weights={name: storage.size(name) for name in names[-_MOST_WEIGHTS:]},
        more_weights=len(names[:-_MOST_WEIGHTS]),
        is_held=storage.exists(DRIVER),
    )


def _facts(storage: Storage) -> dict[str, Any]:
    found = storage.read_many([_RUN], missing_ok=True)
    facts = json.loads(found[_RUN]) if found else {}
    if "strategy" not in facts.get("spec", {}):
        raise SpecError(
            f"{storage.uri} is no training run; expected a directory with the {_RUN} that "
            "`rayreel train` writes"
        )
    return dict(facts)


def _spec(storage: Storage, facts: dict[str, Any]) -> TrainSpec:
    try:
        return TrainSpec.model_validate(facts["spec"])
    except ValidationError as error:
        made_with = facts.get("versions", {}).get("rayreel", "of another version")
        raise SpecError(
            f"{storage.join(_RUN)} was written by rayreel {made_with}, whose specs this one does "
            f"not read: {error}"
        ) from error


def _validated(storage: Storage) -> list[int]:
    """Steps whose clips are there, or are known to have failed."""
    names = [name.rpartition("/")[2] for name in storage.names(VALIDATION)]
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [int(stem.removeprefix("step-")) for stem in stems]
