"""The moving bar of a run: clips as they finish, and chunks of long ones while they are made."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from rayreel.data.storage import Storage
from rayreel.stages.base import ItemFailure, Result
from rayreel.stages.chunks import finished_chunks

_POLL_S = 5.0


class Progress:
    """Counts what is done in chunks: a clip of one piece is one.

    Attributes:
        failed: Clips that could not be made.
    """

    def __init__(self, bar: "tqdm[NoReturn]", chunks: Mapping[str, int], storage: Storage) -> None:
        self.failed = 0
        self._bar = bar
        self._left = dict(chunks)
        self._storage = storage
        self._total = len(chunks)
        self._units = 0
        self._began = False
        self._lock = threading.Lock()

    def finish(self, result: Result, name: str) -> None:
        """Count a clip, and tell of one that failed.

        Args:
            result: What became of it.
            name: Of the row, for a person.
        """
        with self._lock:
            self._units += self._left.pop(result.item_id)
            if isinstance(result, ItemFailure):
                self.failed += 1
                said = f"failed: {name} in {result.stage}: {result.message}"
                self._bar.write(said, file=sys.stderr)
            done = self._total - len(self._left) - self.failed
            self._bar.set_postfix(
                done=done, failed=self.failed, left=len(self._left), refresh=False
            )
            self._show(self._units)

    def look(self) -> None:
        """Count the chunks that long clips have so far."""
        found = finished_chunks(self._storage)
        with self._lock:
            # The last chunk is not the clip: it is still to be decoded and written.
            made = sum(
                min(found[item_id], chunks - 1)
                for item_id, chunks in self._left.items()
                if chunks > 1
            )
            self._show(self._units + made)

    def _show(self, units: int) -> None:
        if units and not self._began:
            # What comes first has waited for the workers: it does not count for the estimate.
            self._began = True
            self._bar.reset()
            self._bar.initial = units
            self._bar.set_description("rendering", refresh=False)
        self._bar.update(max(0, units - int(self._bar.n)))


@contextmanager
def following(chunks: Mapping[str, int], storage: Storage) -> Iterator[Progress]:
    """Show a run until the block ends.

    Args:
        chunks: Of each clip that is left, by item.
        storage: The run directory.
    """
    # A log file takes a line of progress now and then, and a terminal a moving bar.
    interval_s = 0.1 if sys.stderr.isatty() else 10
    unit = "clip" if max(chunks.values()) == 1 else "chunk"
    with tqdm(
        total=sum(chunks.values()),
        unit=unit,
        desc="starting workers",
        smoothing=0,
        mininterval=interval_s,
    ) as bar:
        progress = Progress(bar, chunks, storage)
        over = threading.Event()
        if unit == "clip":
            yield progress
            return
        watcher = threading.Thread(target=_watch, args=(progress, over), daemon=True)
        watcher.start()
        try:
            yield progress
        finally:
            over.set()
            watcher.join()


def _watch(progress: Progress, over: threading.Event) -> None:
    while not over.wait(_POLL_S):
        progress.look()
