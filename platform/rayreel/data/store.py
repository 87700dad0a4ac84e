"""What was computed once and need not be again: texts and tensors, found by a hash of their inputs.

Records are only ever added, in parts that appear whole, so any number of processes may write and
read. Columns that people filter on are plain; tensors are one safetensors blob, as Arrow has no
bfloat16, and nobody who looks for a key reads them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from rayreel.data.storage import Storage
from rayreel.errors import RayreelError

FOLDER = "records"

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("tensors", pa.large_binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One result.

    Attributes:
        key: ``content_hash`` of everything that it depends on: equal keys, equal records.
        kind: What it is, such as ``prompt``.
        text: For texts.
        tensors: For tensors, in safetensors' format; empty where there are none.
        created_at: When it was computed.
    """

    key: str
    kind: str
    text: str | None = None
    tensors: bytes = b""
    created_at: datetime = field(default_factory=partial(datetime.now, UTC))


@dataclass(frozen=True, slots=True)
class _Place:
    created_at: datetime
    part: str
    row: int


class RecordStore:
    """The records of one directory, which runs, jobs and services may share."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._places: dict[str, _Place] = {}
        self._read: set[str] = set()
        self._look_again_at = 0.0

    def get(self, key: str) -> Record | None:
        """The record of a key, whoever wrote it; ``None`` where there is none.

        Where writers computed one at the same time, the earliest counts: what was read once stays.

        Raises:
            RayreelError: If a part is damaged.
        """
        if key not in self._places:
            self._refresh()
        place = self._places.get(key)
        if place is None:
            return None
        with self._opened(place.part) as part:
            (row,) = part.read_row_group(place.row).to_pylist()
        return Record(**row)

    def put(self, *records: Record) -> None:
        """Keep records, as one part. Once this returns, they survive a crash.

        Raises:
            OSError: If they cannot be written.
        """
        rows = [{name: getattr(record, name) for name in _SCHEMA.names} for record in records]
        buffer = BytesIO()
        # A group for each row, so that one can be read without the blobs of the others.
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), buffer, row_group_size=1)
        self._storage.write_bytes(f"{FOLDER}/part-{uuid4().hex}.parquet", buffer.getvalue())

    def _refresh(self) -> None:
        """Learn the keys of parts that were not there yet."""
        if time.monotonic() < self._look_again_at:
            return
        names = self._storage.names(FOLDER)
        # A long listing takes seconds, and what it misses is only computed twice.
        self._look_again_at = time.monotonic() + len(names) // 100
        for name in names:
            if name in self._read:
                continue
            with self._opened(name) as part:
                rows = part.read(columns=["key", "created_at"]).to_pylist()
            for number, row in enumerate(rows):
                place = _Place(row["created_at"], name, number)
                known = self._places.setdefault(row["key"], place)
                if place.created_at < known.created_at:
                    self._places[row["key"]] = place
            self._read.add(name)

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
