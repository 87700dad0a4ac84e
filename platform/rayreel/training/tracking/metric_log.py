"""The metrics of a run: JSON lines in its directory, in parts that are cut at checkpoints.

An object store cannot append to a file, so the last part is written anew every few seconds.
"""

import json
import math
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rayreel.data.storage import Storage
from rayreel.training.tracking.periodic import Periodic
from rayreel.training.tracking.tracker import Status

FOLDER = "metrics"

FLUSH_S = 10.0
"""A run that is killed between checkpoints loses the lines of this time, and makes them anew."""

_MOST_LINES = 1000


class MetricLog:
    """Writes a line for each optimiser step, with the fields that it is given."""

    def __init__(self, storage: Storage, flush_s: float = FLUSH_S) -> None:
        """Start without lines.

        Args:
            storage: The run directory.
            flush_s: Seconds after which lines are written at the latest.
        """
        self._storage = storage
        self._name = ""
        self._lines: list[str] = []
        # Parts that nothing is added to any more.
        self._full: dict[str, list[str]] = {}
        self._written = ("", 0)
        self._adding, self._writing = threading.Lock(), threading.Lock()
        self._periodic = Periodic("writing metrics", self.flush, flush_s)

    def resume(self, step: int) -> None:
        """Forget lines of later steps than the one that the run goes on from.

        Args:
            step: Optimiser steps that are done.

        Raises:
            StorageError: If the storage does not answer.
        """
        names = self._storage.names(FOLDER)
        earlier = [name for name in names if _first_step(name) <= step]
        self._storage.remove(names[len(earlier) :])
        if earlier:
            lines = self._storage.read_text(earlier[-1]).splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            if len(kept) < len(lines):
                self._storage.write_bytes(earlier[-1], _data(kept))

    def log(self, line: Mapping[str, Any]) -> None:
        """Take in a step; it is written a little later."""
        with self._adding:
            if not self._lines:
                self._name = f"{FOLDER}/{line['step']:08d}.jsonl"
            self._lines.append(_text(line))
            if len(self._lines) == _MOST_LINES:
                self._full[self._name], self._lines = self._lines, []

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Leave them alone: they are in the run directory."""

    def cut(self, step: int) -> None:  # noqa: ARG002 - all lines so far are of steps up to it
        """Write all lines, and begin a new part with the next one.

        Raises:
            StorageError: If the storage does not answer.
        """
        self.flush()
        self._lines = []

    def close(self, status: Status) -> None:  # noqa: ARG002 - lines do not say how it ended
        """Write what is left.

        Raises:
            StorageError: If the storage does not answer.
        """
        self._periodic.stop()
        self.flush()

    def flush(self) -> None:
        """Write the lines that are not written yet.

        Raises:
            StorageError: If the storage does not answer.
        """
        with self._writing:
            with self._adding:
                full = dict(self._full)
                name, lines = self._name, list(self._lines)
            for full_name, full_lines in full.items():
                self._storage.write_bytes(full_name, _data(full_lines))
                del self._full[full_name]
            if lines and self._written != (name, len(lines)):
                self._storage.write_bytes(name, _data(lines))
                self._written = (name, len(lines))


def read_metrics(storage: Storage) -> list[dict[str, Any]]:
    """Lines of a run so far, by step; it may go on meanwhile.

    Args:
        storage: The run directory.

    Raises:
        StorageError: If the storage does not answer.
    """
    parts = storage.read_many(storage.names(FOLDER), missing_ok=True)
    return [json.loads(line) for data in parts.values() for line in data.decode().splitlines()]


def _first_step(name: str) -> int:
    return int(name.removeprefix(f"{FOLDER}/").removesuffix(".jsonl"))


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps({name: _plain(value) for name, value in line.items()})


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON can hold
    """JSON has no number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _data(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
