"""The ledger of a run: one line per item that was finished, written after its file is in place.

Files in the folder ``ledger`` of a run appear whole and never change; all hold JSON lines:

- ``one-<item>.jsonl``: the success of an item. Created exclusively, so of all that try, one is told
  that the item is its own.
- ``try-<uuid>.jsonl``: a failed attempt.
- ``part-<uuid>.jsonl``: many lines. Compacting writes it, and then removes what it replaces; lines
  that a kill in between leaves twice are told once, and the next compaction removes them.

So a line that was seen once is found by whoever looks later: a file that vanishes after it was
listed has its lines in a part that a new listing shows.
"""

from collections.abc import Iterator, Sequence
from uuid import uuid4

import numpy as np

from rayreel.data.ledger_entry import FailureRecord, LedgerEntry, worker_name
from rayreel.data.ledger_table import LedgerTable, done_ids, entries_of, parse
from rayreel.data.storage import Storage

__all__ = ["FOLDER", "FailureRecord", "Ledger", "LedgerEntry", "LedgerTable", "worker_name"]

FOLDER = "ledger"

SMALL_PART_BYTES = 16 * 2**20
"""A part of fewer bytes is written again with the lines that are new."""

PART_BYTES = 64 * 2**20
"""A part has about that many bytes at most, as one is read at a time."""

_READ_AT_ONCE = 10_000
_PART = f"{FOLDER}/part-"


class Ledger:
    """The ledger of one run, for any number of writers and readers; one of them may compact."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._done: dict[str, np.ndarray[tuple[int], np.dtype[np.bytes_]]] = {}

    def __reduce__(self) -> tuple[type["Ledger"], tuple[Storage]]:
        """Pickled without what this process has read."""
        return type(self), (self._storage,)

    def append(self, entry: LedgerEntry) -> bool:
        """Record what became of an item. Once this returns, the line survives a crash.

        Returns:
            Whether the line counts: ``False`` for a success of an item that has one already. One
            that was compacted since is not noticed, so ask ``find`` first where there may be one.

        Raises:
            OSError: If it cannot be written.
        """
        line = entry.model_dump_json(exclude_none=True).encode() + b"\n"
        if entry.status == "done":
            return self._storage.create_bytes(_single(entry.item_id), line)
        self._storage.write_bytes(f"{FOLDER}/try-{uuid4().hex}.jsonl", line)
        return True

    def find(self, item_id: str) -> LedgerEntry | None:
        """The success of an item; a few milliseconds if it is not compacted.

        The first that is compacted costs reading all parts; what is learnt from them is kept.

        Raises:
            RayreelError: If the line is damaged.
        """
        name = _single(item_id)
        if found := self._storage.read_many([name], missing_ok=True):
            return entries_of(self._storage.join(name), found[name])[0]
        while True:
            if not self._learn(self._parts()):
                continue
            part = next((part for part in self._done if self._holds(part, item_id)), None)
            if part is None:
                return None
            # One that vanishes was compacted again.
            if found := self._storage.read_many([part], missing_ok=True):
                lines = (line for line in found[part].splitlines() if item_id.encode() in line)
                entries = entries_of(self._storage.join(part), b"\n".join(lines))
                return next(e for e in entries if (e.item_id, e.status) == (item_id, "done"))

    def read(self) -> dict[str, LedgerEntry]:
        """The entry that counts for each item, by id; for small runs.

        A done entry counts more than a failed one, then a later attempt more than an earlier one.

        Raises:
            RayreelError: If a line is damaged.
        """
        table = self.table()
        entries = table.entries(table.ids)
        return {entry.item_id: entry for entry in entries if entry is not None}

    def table(self) -> LedgerTable:
        """The entries that count, for runs of any size.

        Raises:
            RayreelError: If a line is damaged.
        """
        return LedgerTable(parse(files, self._storage.join) for files in self._files())

    def compact(self, least: int = 1) -> None:
        """Put lines that have files of their own into parts; for the driver of a run alone.

        Args:
            least: With fewer of them nothing is done.

        Raises:
            RayreelError: If a line is damaged.
        """
        singles = [name for name in self._storage.names(FOLDER) if not name.startswith(_PART)]
        if len(singles) < max(least, 1):
            return
        for names in _batched(singles):
            self._merge(names)

    def _merge(self, singles: Sequence[str]) -> None:
        parts = self._parts()
        small = [part for part in parts if self._storage.size(part) < SMALL_PART_BYTES]
        self._learn([part for part in parts if part not in small])
        replaced = [*small, *singles]
        entries: dict[str, LedgerEntry] = {}
        for name, data in self._storage.read_many(replaced).items():
            for entry in entries_of(self._storage.join(name), data):
                key = entry.item_id if entry.status == "done" else entry.model_dump_json()
                known = entries.get(key)
                if known is None or entry.attempt > known.attempt:
                    entries[key] = entry
        lines = [
            entry.model_dump_json(exclude_none=True).encode() + b"\n"
            for entry in entries.values()
            if entry.status == "failed"
            or not any(self._holds(p, entry.item_id) for p in self._done)
        ]
        for start, stop in _cuts([len(line) for line in lines]):
            data = b"".join(lines[start:stop])
            self._storage.write_bytes(f"{_PART}{uuid4().hex}.jsonl", data)
        self._storage.remove(replaced)

    def _files(self) -> Iterator[dict[str, bytes]]:
        """All files, as many at a time as fit into memory."""
        read: set[str] = set()
        names = self._storage.names(FOLDER)
        while names:
            singles = [name for name in names if not name.startswith(_PART)]
            for batch in _batched(singles):
                yield self._storage.read_many(batch, missing_ok=True)
            parts = [name for name in names if name.startswith(_PART)]
            for part in parts:
                yield self._storage.read_many([part], missing_ok=True)
            read.update(parts)
            # What vanished, or was moved while the folder was listed, is in parts that are new.
            names = [part for part in self._parts() if part not in read]

    def _parts(self) -> list[str]:
        return [name for name in self._storage.names(FOLDER) if name.startswith(_PART)]

    def _learn(self, parts: Sequence[str]) -> bool:
        """Know which items have their successes in these parts, and forget all others.

        Returns:
            Whether all of them are still there.
        """
        self._done = {part: self._done[part] for part in parts if part in self._done}
        for part in parts:
            if part not in self._done:
                found = self._storage.read_many([part], missing_ok=True)
                self._done |= {p: done_ids(self._storage.join(p), d) for p, d in found.items()}
        return len(self._done) == len(parts)

    def _holds(self, part: str, item_id: str) -> bool:
        ids = self._done[part]
        row = np.searchsorted(ids, item_id.encode())
        return bool(row < len(ids) and ids[row] == item_id.encode())


def _single(item_id: str) -> str:
    return f"{FOLDER}/one-{item_id}.jsonl"


def _batched(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[i : i + _READ_AT_ONCE] for i in range(0, len(names), _READ_AT_ONCE))


def _cuts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where to cut lines of these sizes into parts."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if total + size > PART_BYTES and total:
            yield start, index
            start, total = index, 0
        total += size
    if total:
        yield start, len(sizes)
