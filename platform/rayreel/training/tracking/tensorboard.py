"""TensorBoard's files in the run directory; numbers alone, as clips are on the report."""

import re
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# Without the writer around it, which starts threads and processes for each file.
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from rayreel.data.storage import Storage
from rayreel.training.tracking.periodic import Periodic
from rayreel.training.tracking.tracker import Status, scalars

FOLDER = "tensorboard"

_FLUSH_S = 10.0
# An object store is given the whole of the last file each time.
_UPLOAD_S = 60.0
_DONE = re.compile(r"\.done(\d+)$")


class TensorBoard:
    """Writes event files, each from one checkpoint to the next.

    So what comes after the step that a run goes on from can be taken away, and files that go to an
    object store are short.
    """

    def __init__(self, storage: Storage, step: int) -> None:
        """Take away what comes after a step, and go on from there.

        Args:
            storage: The run directory.
            step: Optimiser steps that are done.

        Raises:
            StorageError: If the storage does not answer.
        """
        self._storage = storage
        for name in storage.names(FOLDER):
            if _steps_before(name) >= step:
                # A TensorBoard that is open would not get past a file that is gone.
                storage.write_bytes(name, b"")
        self._stack = ExitStack()
        local = storage.local_path(FOLDER)
        self._folder = local or Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._uploads = local is None
        self._turn = threading.Lock()
        self._writer = self._opened(step)
        # It is told to forget what it has read of them.
        self._add(step + 1, None, file_version="brain.Event:2")
        self._add(step + 1, None, session_log=SessionLog(status=SessionLog.START))
        self._periodic = Periodic(
            "writing events", self._keep, _UPLOAD_S if self._uploads else _FLUSH_S
        )

    def log(self, line: Mapping[str, Any]) -> None:
        """Take in a step."""
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in scalars(line).items()
        ]
        self._add(line["step"], line.get("time"), summary=Summary(value=values))

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Leave them alone: they are in the run directory."""

    def cut(self, step: int) -> None:
        """Write all there is, and begin a new file.

        Raises:
            StorageError: If the storage does not answer.
        """
        if step == self._begun:
            # It would have the name of the last one, which has nothing but its beginning.
            return
        self._end_file()
        self._writer = self._opened(step)

    def close(self, status: Status) -> None:  # noqa: ARG002 - it has no word for it
        """Write what is left.

        Raises:
            StorageError: If the storage does not answer.
        """
        with self._stack:
            self._periodic.stop()
            self._end_file()

    def _opened(self, step: int) -> EventsWriter:
        """A file of the steps after one."""
        self._begun = step
        return EventsWriter(str(self._folder / "events"), f".done{step:08d}")

    def _add(self, step: int, time: float | None, **content: Any) -> None:  # noqa: ANN401 - of protobuf
        event = Event(step=step, **content)
        if time is not None:
            event.wall_time = time
        self._writer.write_event(event)

    def _end_file(self) -> None:
        with self._turn:
            self._writer.close()
            self._upload()
            if self._uploads:
                for path in self._folder.iterdir():
                    path.unlink()

    def _keep(self) -> None:
        with self._turn:
            self._writer.flush()
            self._upload()

    def _upload(self) -> None:
        if self._uploads:
            for path in self._folder.iterdir():
                self._storage.write_bytes(f"{FOLDER}/{path.name}", path.read_bytes())


def _steps_before(name: str) -> int:
    """Steps that were done when a file was begun; -1 of a file that is not ours."""
    found = _DONE.search(name)
    return int(found[1]) if found else -1
