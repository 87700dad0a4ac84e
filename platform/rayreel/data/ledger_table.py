"""The ledger of a run of any size as one table, sorted by item."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from pydantic import ValidationError

from rayreel.config.jobs import StageName
from rayreel.data.ledger_entry import LedgerEntry
from rayreel.errors import RayreelError

# A line must fit into a block; many written prompts may be long.
_BLOCK_BYTES = 8 * 2**20
_ENCODE_ROWS = 2**16

# What JSON is read as: no large lists, no dictionaries.
_LINES = pa.schema(
    [
        ("item_id", pa.string()),
        ("status", pa.string()),
        ("attempt", pa.int64()),
        ("seconds", pa.struct([(name, pa.float64()) for name in get_args(StageName)])),
        ("output", pa.string()),
        ("sha256", pa.string()),
        ("num_bytes", pa.int64()),
        (
            "error",
            pa.struct(
                [
                    *((name, pa.string()) for name in ("stage", "error", "message")),
                    ("retryable", pa.bool_()),
                ]
            ),
        ),
        ("num_frames", pa.int64()),
        ("seed", pa.int64()),
        ("prompts", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("batch", pa.int64()),
        ("memory", pa.string()),
        ("worker", pa.string()),
        ("finished_at", pa.timestamp("us", "UTC")),
    ]
)
_REQUIRED = ("item_id", "status", "attempt", "worker", "finished_at")
_IDS = pa.schema([("item_id", pa.string()), ("status", pa.string())])


class LedgerTable:
    """One row per item: a success counts most, then the later attempt.

    Attributes:
        table: Columns as the fields of ``LedgerEntry``, sorted by ``item_id``; its error is in
            ``error_stage``, ``error``, ``error_message`` and ``error_retryable``.
        ids: The sorted item ids, as numpy bytes.
    """

    def __init__(self, parts: Iterable[pa.Table]) -> None:
        """Of tables that ``parse`` returned."""
        empty = _flat(_LINES.empty_table())
        whole = pa.concat_tables([empty, *parts], promote_options="permissive")
        ids = encoded(whole["item_id"])
        weights = [whole["finished_at"].cast(pa.int64()), whole["attempt"]]
        done = pc.equal(whole["status"], "done")
        order = np.lexsort((*(w.to_numpy() for w in weights), done.to_numpy(), ids))
        # The last of an item's rows weighs most.
        ids = ids[order]
        counts = np.append(ids[1:] != ids[:-1], [True])[: len(ids)]
        self.ids: np.ndarray[tuple[int], np.dtype[np.bytes_]] = ids[counts]
        names, columns = whole.column_names, whole.columns
        # Column by column, so that no two tables are held at once.
        del whole
        pa.default_memory_pool().release_unused()
        rows, taken = pa.array(order[counts]), []
        while columns:
            taken.append(columns.pop(0).take(rows))
            pa.default_memory_pool().release_unused()
        self.table: pa.Table = pa.table(taken, names)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)

    def status(
        self, item_ids: "Sequence[str] | np.ndarray[Any, Any]"
    ) -> list[Literal["done", "failed"] | None]:
        """What became of each of some items; ``None`` where nothing has."""
        rows, there = self._rows(item_ids)
        if not there.any():
            return [None] * len(rows)
        found = self.table["status"].take(pa.array(rows)).to_pylist()
        return [status if is_there else None for status, is_there in zip(found, there, strict=True)]

    def entry(self, item_id: str) -> LedgerEntry | None:
        """The row of one item."""
        return self.entries([item_id])[0]

    def entries(self, item_ids: "Sequence[str] | np.ndarray[Any, Any]") -> list[LedgerEntry | None]:
        """The rows of some items, in their order; ``None`` where there is none."""
        rows, there = self._rows(item_ids)
        found = iter(self.table.take(pa.array(rows[there])).to_pylist())
        return [_entry(next(found)) if is_there else None for is_there in there]

    def _rows(
        self, item_ids: "Sequence[str] | np.ndarray[Any, Any]"
    ) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """Row of each item, and whether it has one; rows of those that have none are row 0."""
        wanted = np.asarray(item_ids, dtype=np.bytes_).reshape(-1)
        rows = np.searchsorted(self.ids, wanted)
        there = rows < len(self.ids)
        rows[~there] = 0
        there[there] = self.ids[rows[there]] == wanted[there]
        return rows, there


def parse(files: Mapping[str, bytes], shown: Callable[[str], str]) -> pa.Table:
    """Lines of some files.

    Args:
        files: Contents by name.
        shown: The name that a person finds a file under.

    Returns:
        A row per line, with the columns of ``LedgerTable.table``.

    Raises:
        RayreelError: If a line is damaged; names it.
    """
    data = b"".join(files.values())
    if not data:
        return _flat(_LINES.empty_table())
    try:
        # New stages have seconds too.
        lines = _read(data, _LINES, unexpected="infer").select(_LINES.names)
        pa.default_memory_pool().release_unused()
    except pa.ArrowException as error:
        raise _damage(files, shown, str(error)) from error
    if not all(content.endswith(b"\n") for content in files.values()) or not _is_sound(lines):
        raise _damage(files, shown, "lines contradict themselves")
    return _flat(lines)


def done_ids(name: str, data: bytes) -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    """Sorted ids of the items that a file has success lines of.

    Raises:
        RayreelError: If the file is damaged.
    """
    try:
        lines = _read(data, _IDS, unexpected="ignore") if data else _IDS.empty_table()
    except pa.ArrowException as error:
        raise _damage({name: data}, str, str(error)) from error
    return np.sort(encoded(lines.filter(pc.equal(lines["status"], "done"))["item_id"]))


def entries_of(name: str, data: bytes) -> list[LedgerEntry]:
    """Lines of one file.

    Raises:
        RayreelError: If one is damaged; names it.
    """
    *lines, rest = data.split(b"\n")
    found = []
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            found.append(LedgerEntry.model_validate_json(line))
        except ValidationError as error:
            raise RayreelError(
                f"line {number} of {name} is damaged ({error.errors()[0]['msg']}); "
                "move the file away to redo its items"
            ) from error
    return found


def encoded(ids: pa.ChunkedArray) -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    """Ids as numpy bytes; in pieces, as a million Python strings take much memory."""
    pieces = [
        np.array(ids.slice(start, _ENCODE_ROWS).to_pylist(), dtype=np.bytes_)
        for start in range(0, len(ids), _ENCODE_ROWS)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.bytes_)


def _read(data: bytes, schema: pa.Schema, unexpected: str) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(data),
        pj.ReadOptions(block_size=_BLOCK_BYTES),
        pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )


def _is_sound(lines: pa.Table) -> bool:
    """Whether rows are what ``LedgerEntry`` takes; see its validator."""
    if any(lines[name].null_count for name in _REQUIRED):
        return False
    done = pc.equal(lines["status"], "done")
    known = pc.or_(done, pc.equal(lines["status"], "failed"))
    fits = [known, pc.equal(done, pc.is_null(lines["error"]))]
    fits += [pc.equal(done, pc.is_valid(lines[name])) for name in ("output", "sha256", "num_bytes")]
    return all(pc.all(fit).as_py() is not False for fit in fits)


def _damage(files: Mapping[str, bytes], shown: Callable[[str], str], reason: str) -> RayreelError:
    try:
        for name, data in files.items():
            entries_of(shown(name), data)
            if not data.endswith(b"\n"):
                return RayreelError(f"{shown(name)} is damaged (its last line has no end)")
    except RayreelError as error:
        return error
    return RayreelError(f"{', '.join(map(shown, files))} cannot be read: {reason}")


def _flat(lines: pa.Table) -> pa.Table:
    """With a column for each part of an error, and offsets that hold any run's texts."""
    texts = pa.large_list(pa.large_string())
    columns: dict[str, Any] = {}
    for name in lines.column_names:
        if name == "error":
            stage, error, message, retryable = lines[name].combine_chunks().flatten()
            columns |= {
                "error_stage": stage,
                "error": error,
                "error_message": message.cast("large_string"),
                "error_retryable": retryable,
            }
        elif name in ("prompts", "notes"):
            columns[name] = lines[name].cast(texts)
        else:
            columns[name] = lines[name]
    return pa.table(columns)


def _entry(row: Mapping[str, Any]) -> LedgerEntry:
    given: dict[str, Any] = {name: value for name, value in row.items() if value is not None}
    seconds = given.pop("seconds", {})
    given["seconds"] = {name: value for name, value in seconds.items() if value is not None}
    error: dict[str, Any] = {
        "error": given.pop("error", None),
        "stage": given.pop("error_stage", None),
    }
    error |= {"message": given.pop("error_message", None)}
    error |= {"retryable": given.pop("error_retryable", False)}
    if error["error"] is not None:
        given["error"] = error
    moment: datetime = given["finished_at"]
    return LedgerEntry.model_validate(given | {"finished_at": moment})
