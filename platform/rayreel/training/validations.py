"""Validation clips while training goes on: begun, followed, and never in its way."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rayreel.data.sources import local_copy
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from rayreel.training.tracking import Tracker
from rayreel.training.validation import (
    ValidationResult,
    ValidationTask,
    results_name,
    write_results,
)

log = logging.getLogger(__name__)

Results = tuple[ValidationResult, ...]
Begin = Callable[[ValidationTask], "Future[Results]"]
"""Begins a task, wherever it is done."""


def begin_here(task: ValidationTask) -> "Future[Results]":
    """Do a task in this process, now."""
    future: Future[Results] = Future()
    try:
        future.set_result(task())
    except Exception as error:  # noqa: BLE001 - training goes on; the future keeps it
        future.set_exception(error)
    return future


@dataclass(kw_only=True)
class Validations:
    """Those of a run, on its first process.

    Attributes:
        task: What they have in common; its weights are what the run starts from.
        storage: The run directory.
        tracker: Shown the clips.
        begin: Begins a task.
        timeout_s: How long the last ones are waited for.
    """

    task: ValidationTask
    storage: Storage
    tracker: Tracker
    begin: Begin
    timeout_s: float
    _open: "dict[int, tuple[str | None, Future[Results]]]" = field(default_factory=dict)

    @property
    def in_use(self) -> set[str]:
        """Names of weights that tasks still read."""
        return {weights for weights, _ in self._open.values() if weights}

    def start(self, step: int, weights: str | None) -> None:
        """Begin with the clips of a step, unless they are there.

        Args:
            step: Steps that are done.
            weights: Name of what was saved then; ``None`` before the first step.
        """
        if self.storage.exists(results_name(step)):
            return
        uri = self.storage.join(weights) if weights else self.task.weights
        self._open[step] = weights, self.begin(replace(self.task, step=step, weights=uri))
        self.poll()

    def poll(self) -> None:
        """Show what is done by now."""
        for step, (_, future) in list(self._open.items()):
            if future.done():
                del self._open[step]
                self._close(step, future.exception() or future.result())

    def finish(self) -> None:
        """Wait for what is not done yet, as long as it may take."""
        futures = [future for _, future in self._open.values()]
        wait_for(futures, timeout=self.timeout_s)
        self.poll()
        for step in self._open:
            self._close(step, TimeoutError(f"not done after {self.timeout_s:.0f} s"))

    def _close(self, step: int, outcome: BaseException | Results) -> None:
        if isinstance(outcome, BaseException):
            log.warning("validation of step %d failed: %s", step, outcome)
            self._write_failure(step, f"{type(outcome).__name__}: {outcome}")
            return
        for result in outcome:
            if result.error:
                log.warning("validation of step %d: %s: %s", step, result.name, result.error)
        clips = {one.name: one.file for one in outcome if one.file}
        with ExitStack() as copies:
            paths = {
                name: Path(copies.enter_context(local_copy(self.storage.join(file))))
                for name, file in clips.items()
            }
            self.tracker.clips(step, paths)

    def _write_failure(self, step: int, error: str) -> None:
        """What is there instead of the clips of a step, for the report."""
        results = tuple(
            ValidationResult(
                name=name,
                prompt=request.prompt,
                seed=request.seed or 0,
                file=None,
                error=error,
                seconds=0.0,
            )
            for name, request in self.task.requests
        )
        try:
            write_results(self.storage, step, results)
        except RayreelError as lost:
            log.warning("that cannot be written down: %s", lost)
