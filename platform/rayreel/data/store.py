"""What was computed once and need not be again: texts and tensors, found by a hash of their inputs.

Records are only ever added, in parts that appear whole, so any number of processes may write and
read. Columns that people filter on are plain; tensors are one safetensors blob, as Arrow has no
bfloat16, and nobody who looks for a key reads them: what is in a part is told by its footer.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from itertools import chain
from typing import Any, TypeVar
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from rayreel.data.storage import Storage
from rayreel.errors import RayreelError

FOLDER = "records"

T = TypeVar("T")
R = TypeVar("R")

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("made_by", pa.string()),
        pa.field("tensors", pa.large_binary(), nullable=False),
    ]
)
_INDEX = ("key", "created_at")
_KEY, _CREATED_AT = map(_SCHEMA.names.index, _INDEX)

# Object stores answer slowly, and many questions at a time.
_READERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One result.

    Attributes:
        key: ``content_hash`` of everything that it depends on: equal keys, equal records.
        kind: What it is, such as ``prompt``.
        text: For texts.
        tensors: For tensors, in safetensors' format; empty where there are none.
        made_by: What it depends on beside its own inputs, by name: of files, fingerprints.
        created_at: When it was computed.
    """

    key: str
    kind: str
    text: str | None = None
    tensors: bytes = b""
    made_by: Mapping[str, str] | None = None
    created_at: datetime = field(default_factory=partial(datetime.now, UTC))


_Place = tuple[datetime, int, int]
"""When a record was made, the number of its part, and the row in it."""


class RecordStore:
    """The records of one directory, which runs, jobs and services may share."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._parts: list[str] = []
        self._places: dict[str, _Place] = {}
        self._look_again_at = 0.0

    def get(self, key: str) -> Record | None:
        """The record of a key, whoever wrote it; ``None`` where there is none.

        Where writers computed one at the same time, the earliest counts: what was read once stays.

        Raises:
            RayreelError: If a part is damaged.
        """
        # A long listing takes seconds, and what it misses is only computed twice.
        if key not in self._places and time.monotonic() >= self._look_again_at:
            self._refresh()
        place = self._places.get(key)
        if place is None:
            return None
        _, part, row = place
        with self._opened(self._parts[part]) as file:
            return _record(file.read_row_group(row).to_pylist()[0])

    def read(self, keys: Collection[str]) -> dict[str, Record]:
        """The records of some keys that have one by now; each part is opened once.

        Raises:
            RayreelError: If a part is damaged.
        """
        places = [self._places[key] for key in self.known(keys)]
        rows: dict[str, list[int]] = {}
        for _, part, row in places:
            rows.setdefault(self._parts[part], []).append(row)
        found = {record.key: record for record in chain(*self._each(self._records, rows.items()))}
        return {key: found[key] for key in keys if key in found}

    def known(self, keys: Collection[str]) -> set[str]:
        """Those of some keys that have a record by now; raises ``RayreelError`` as above."""
        if any(key not in self._places for key in keys):
            self._refresh()
        return {key for key in keys if key in self._places}

    def find(self, kind: str, text: str) -> list[Record]:
        """All records of a text, earliest first, without their tensors; reads every part.

        Raises:
            RayreelError: If a part is damaged.
        """
        columns = [name for name in _SCHEMA.names if name != "tensors"]
        found = []
        for name in self._storage.names(FOLDER):
            with self._opened(name) as part:
                rows = part.read(columns=columns).to_pylist()
            found += [_record(row) for row in rows if (row["kind"], row["text"]) == (kind, text)]
        return sorted(found, key=lambda record: record.created_at)

    def is_empty(self) -> bool:
        """Whether there is no record at all."""
        return not self._storage.names(FOLDER)

    def put(self, *records: Record) -> None:
        """Keep records, as one part. Once this returns, they survive a crash.

        Raises:
            OSError: If they cannot be written.
        """
        buffer = BytesIO()
        table = pa.Table.from_pylist([_row(record) for record in records], _SCHEMA)
        # A group for each row, so that one can be read without the blobs of the others; and so that
        # the footer's least values are those of the row.
        pq.write_table(table, buffer, row_group_size=1, write_statistics=list(_INDEX))
        name = f"{FOLDER}/part-{uuid4().hex}.parquet"
        self._storage.write_bytes(name, buffer.getvalue())
        self._learn(name, [(record.key, record.created_at) for record in records])

    def _refresh(self) -> None:
        """Learn the keys of parts that were not there yet."""
        names = self._storage.names(FOLDER)
        self._look_again_at = time.monotonic() + len(names) // 100
        read = set(self._parts)
        new = [name for name in names if name not in read]
        for name, keys in zip(new, self._each(self._index, new), strict=True):
            self._learn(name, keys)

    def _learn(self, part: str, keys: Sequence[tuple[str, datetime]]) -> None:
        self._parts.append(part)
        for row, (key, created_at) in enumerate(keys):
            place = (created_at, len(self._parts) - 1, row)
            self._places[key] = min(place, self._places.get(key, place))

    def _each(self, look: Callable[[T], R], parts: Iterable[T]) -> list[R]:
        """What looking into parts finds, of an object store into several at a time."""
        if self._storage.local_path(FOLDER) is not None:
            return [look(part) for part in parts]
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(look, parts))

    def _records(self, part: tuple[str, Sequence[int]]) -> list[Record]:
        name, rows = part
        with self._opened(name) as file:
            return [_record(row) for row in file.read_row_groups(list(rows)).to_pylist()]

    def _index(self, name: str) -> list[tuple[str, datetime]]:
        """Keys of a part and when its records were made."""
        with self._opened(name) as part:
            groups = map(part.metadata.row_group, range(part.metadata.num_row_groups))
            return [
                (group.column(_KEY).statistics.min, group.column(_CREATED_AT).statistics.min)
                for group in groups
            ]

    @contextmanager
    def _opened(self, name: str) -> Iterator[pq.ParquetFile]:
        try:
            with self._file(name) as file, pq.ParquetFile(file) as part:
                yield part
        except pa.ArrowException as error:
            raise RayreelError(
                f"{self._storage.join(name)} is not a part of a store ({error}); "
                "move it away, and what it held is computed again"
            ) from error

    def _file(self, name: str) -> Any:  # noqa: ANN401 - what fsspec opens has no common type
        """A part for reading at random: of an object store only what is asked for is fetched."""
        local = self._storage.local_path(name)
        if local is not None:
            return local.open("rb")
        file_system, path = fsspec.url_to_fs(self._storage.join(name))
        return file_system.open(path, "rb", cache_type="none")


def _row(record: Record) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _SCHEMA.names}
    return row | {"made_by": record.made_by and json.dumps(dict(record.made_by))}


def _record(row: Mapping[str, Any]) -> Record:
    made_by = row["made_by"] and json.loads(row["made_by"])
    return Record(**{**row, "made_by": made_by})
