"""Trackers on servers: a thread talks to each, and what goes wrong ends that tracker alone."""

import logging
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rayreel.training.tracking.tracker import Status

log = logging.getLogger(__name__)

CLOSE_S = 120.0
"""How long the end of a run waits for a server."""


class Service(Protocol):
    """A server that takes a run in. Methods are called on one thread, and may raise anything."""

    def lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take in optimiser steps, in order."""

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Take in validation clips by name; their files are removed afterwards."""

    def close(self, status: Status) -> None:
        """Send what is left."""


class Remote:
    """A tracker in front of a server. A server that fails is warned about and told no more."""

    def __init__(
        self, name: str, connect: Callable[[], Service], *, close_s: float = CLOSE_S
    ) -> None:
        """Start to connect; nobody waits for it.

        Args:
            name: Of the server, for people.
            connect: Connects to it.
            close_s: How long ``close`` waits.
        """
        self._name, self._connect, self._close_s = name, connect, close_s
        self._lines: list[Mapping[str, Any]] = []
        self._turn = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[Service], None] | None] = queue.SimpleQueue()
        self._failed = False
        self._copies = tempfile.TemporaryDirectory()
        self._thread = threading.Thread(target=self._run, name=f"sending to {name}", daemon=True)
        self._thread.start()

    def log(self, line: Mapping[str, Any]) -> None:
        """Take in a step; those that come while the server is busy are sent together."""
        if self._failed:
            return
        with self._turn:
            self._lines.append(line)
            first = len(self._lines) == 1
        if first:
            self._tasks.put(lambda service: service.lines(self._taken()))

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Take in validation clips."""
        if self._failed:
            return
        folder = Path(tempfile.mkdtemp(dir=self._copies.name))
        try:
            copies = {name: Path(shutil.copy(path, folder)) for name, path in files.items()}
        except OSError as error:
            log.warning("%s is not shown the clips of step %d: %s", self._name, step, error)
            return

        def send(service: Service) -> None:
            try:
                service.clips(step, copies)
            finally:
                shutil.rmtree(folder)

        self._tasks.put(send)

    def cut(self, step: int) -> None:
        """Go on: a server keeps what it has."""

    def close(self, status: Status) -> None:
        """Send what is left, or give up on it."""
        self._tasks.put(lambda service: service.close(status))
        self._tasks.put(None)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            log.warning(
                "%s did not take the end of the run in within %.0f s", self._name, self._close_s
            )
            return
        self._copies.cleanup()

    def _taken(self) -> list[Mapping[str, Any]]:
        with self._turn:
            lines, self._lines = self._lines, []
        return lines

    def _run(self) -> None:
        try:
            service = self._connect()
            while task := self._tasks.get():
                task(service)
        except Exception as error:
            self._failed = True
            log.warning(
                "%s is told no more of this run, which goes on: %s: %s",
                self._name,
                type(error).__name__,
                error,
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
