"""What follows a run, and what it is told."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["finished", "failed", "stopped"]
"""How a process of a run ended: stopped by a person, it is to go on later."""

_TRAIN = ("loss", "loss_video", "loss_audio", "learning_rate", "grad_norm", "epoch")
_SPEED = ("tokens_per_s", "seconds", "wait_seconds", "flops_per_s", "utilisation")


class Tracker(Protocol):
    """Follows a run on its first process."""

    def log(self, line: Mapping[str, Any]) -> None:
        """Take in an optimiser step: a line of the metrics."""

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Take in validation clips by name; their files may be gone afterwards."""

    def cut(self, step: int) -> None:
        """Keep what there is up to a step that the run will be able to go on from."""

    def close(self, status: Status) -> None:
        """End, with everything written."""


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a line of the metrics under the names that all trackers use.

    Args:
        line: What it has of the known fields counts; values that are not finite do not.
    """
    found = {f"train/{name}": line.get(name) for name in _TRAIN}
    found |= {f"sigma/{name}": loss for name, loss in line.get("sigma_loss", {}).items()}
    found |= {f"speed/{name}": line.get(name) for name in _SPEED}
    found["memory/gib"] = line.get("memory_gib")
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }
