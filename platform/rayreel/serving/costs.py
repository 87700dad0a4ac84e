"""What jobs cost, measured by the service itself and shared with jobs of the same store."""

import threading
import time
from collections.abc import Mapping

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import StageName
from rayreel.config.request import RenderRequest
from rayreel.data.storage import Storage
from rayreel.requests.costs import CostBook, Item, Observation
from rayreel.requests.shapes import shape_of

_FRESH_S = 10.0


class Costs:
    """The book of costs in a store, for any number of threads."""

    def __init__(
        self, storage: Storage, files: ModelFiles, devices: Mapping[StageName, str]
    ) -> None:
        """Read nothing yet.

        Args:
            storage: Where the book lies.
            files: The model.
            devices: Of its stages, as ``device_label`` says them.
        """
        self._storage, self._files, self._devices = storage, files, devices
        self._lock = threading.Lock()
        self._book = CostBook()
        self._read_at = float("-inf")
        self._new: list[Observation] = []

    def book(self) -> CostBook:
        """What is known, as of the last seconds.

        Raises:
            StorageError: If the store does not answer.
            SpecError: If the book is damaged.
        """
        with self._lock:
            if time.monotonic() - self._read_at > _FRESH_S:
                self._book, self._read_at = CostBook.load(self._storage), time.monotonic()
            return self._book

    def observe(self, request: RenderRequest, seconds: Mapping[str, float]) -> None:
        """Remember what a job took, by stage; ``save`` writes it down."""
        shape = shape_of(request, self._files)
        items: dict[StageName, Item] = {stage: Item.clip(stage, shape) for stage in shape.work}
        items["text"] = Item.text(written=request.enhance)
        with self._lock:
            self._new += [
                # A job's share of its batch is what it costs.
                Observation(item=item, device=device, batch=1, seconds=seconds[stage])
                for stage, item in items.items()
                if stage in seconds and (device := self._devices.get(stage))
            ]

    def save(self) -> None:
        """Add what was remembered to the book.

        Raises:
            StorageError: If the store does not answer; nothing is forgotten then.
        """
        with self._lock:
            if not self._new:
                return
            self._book = CostBook.load(self._storage).merged(CostBook.of(self._new))
            self._book.save(self._storage)
            # Not before: what could not be saved is kept for the next time.
            self._new, self._read_at = [], time.monotonic()
