"""The moving bar of a run: clips as they finish, and chunks of long ones while they are made."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from rayreel.data.storage import Storage
from rayreel.stages.base import ItemFailure
from rayreel.stages.chunks import finished_chunks

_POLL_S = 5.0


class Progress:
    """Counts what is done in chunks: a clip of one piece is one.

    Attributes:
        done: Clips that were made.
        failed: Clips that could not be made.
    """

    def __init__(self, bar: "tqdm[NoReturn]", clips: int, storage: Storage) -> None:
        self.done = 0
        self.failed = 0
        self._bar = bar
        self._clips = clips
        self._chunks: dict[str, int] = {}
        self._storage = storage
        self._units = 0
        self._began = False
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Clips that are neither done nor failed."""
        return self._clips - self.done - self.failed

    def expect(self, chunks: Mapping[str, int]) -> None:
        """Clips that are rendered next, with their chunks, by item."""
        with self._lock:
            self._chunks |= chunks

    def finish(self, item_id: str, failure: ItemFailure | None, name: str) -> None:
        """Count a clip, and tell of one that failed.

        Args:
            item_id: The clip.
            failure: Why it could not be made.
            name: Of the row, for a person.
        """
        with self._lock:
            self._units += self._chunks.pop(item_id)
            if failure:
                self.failed += 1
                said = f"failed: {name} in {failure.stage}: {failure.message}"
                self._bar.write(said, file=sys.stderr)
            else:
                self.done += 1
            self._bar.set_postfix(done=self.done, failed=self.failed, left=self.left, refresh=False)
            self._show(self._units)

    def look(self) -> None:
        """Count the chunks that long clips have so far."""
        with self._lock:
            long = {item_id: n for item_id, n in self._chunks.items() if n > 1}
        found = finished_chunks(self._storage) if long else {}
        with self._lock:
            # The last chunk is not the clip: it is still to be decoded and written.
            made = sum(min(found.get(item_id, 0), n - 1) for item_id, n in long.items())
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
def following(clips: int, chunks: int, storage: Storage) -> Iterator[Progress]:
    """Show a run until the block ends.

    Args:
        clips: That are left.
        chunks: Of all of them together.
        storage: The run directory.
    """
    # A log file takes a line of progress now and then, and a terminal a moving bar.
    interval_s = 0.1 if sys.stderr.isatty() else 10
    unit = "clip" if chunks == clips else "chunk"
    with tqdm(
        total=chunks, unit=unit, desc="starting workers", smoothing=0, mininterval=interval_s
    ) as bar:
        progress = Progress(bar, clips, storage)
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
