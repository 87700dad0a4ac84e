"""Prompt lists and dataset lists: JSONL, CSV, Parquet or JSON to rows of plain values."""

import csv
import json
import math
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rayreel.data.json_list import elements
from rayreel.errors import SpecError

_MAX_LISTED_FAULTS = 100
# A row of a Parquet file may be long, and all rows of a batch are there at once.
_PARQUET_BATCH = 512
_PARQUET_BUFFER = 2**20

T = TypeVar("T")


class Row(NamedTuple):
    """One row of a list.

    Attributes:
        number: Where a person finds it: the line on which it starts in a JSONL or CSV file, the row
            in a Parquet or JSON file; from 1.
        values: By column; what is empty or null is absent.
    """

    number: int
    values: dict[str, Any]


class FaultList:
    """What is wrong with the rows of a list: the first faults, and how many there are.

    Attributes:
        listed: The first ones, each with the number of its row.
        count: All of them.
    """

    def __init__(self, most: int) -> None:
        """Start without faults.

        Args:
            most: How many are kept.
        """
        self.listed: list[tuple[int, str]] = []
        self.count = 0
        self._most = most

    def add(self, number: int, fault: str) -> None:
        """Count a fault of a row; rows come in order."""
        self.count += 1
        if len(self.listed) < self._most:
            self.listed.append((number, fault))

    def include(self, other: "FaultList") -> None:
        """Take in another list of the same rows; of one row, its faults come first."""
        self.count += other.count
        both = sorted([*other.listed, *self.listed], key=lambda entry: entry[0])
        self.listed = both[: self._most]

    def text(self, head: str) -> str:
        """Message for a person: a line for each fault that is kept."""
        more = self.count - len(self.listed)
        lines = [fault for _, fault in self.listed]
        return "\n  ".join([head, *lines, *([f"and {more} more"] if more else [])])


class Manifest:
    """A list of prompts or of media, read as often as needed, with a row in memory at a time.

    CSV cells are text, except that a cell which holds a JSON object or list becomes that. A list on
    another file system is fetched once, to a temporary file.

    Attributes:
        uri: As it was given.
    """

    def __init__(self, uri: str | Path) -> None:
        """Find the file.

        Args:
            uri: File ending in ``.jsonl``, ``.csv``, ``.parquet`` or ``.json``, on any fsspec file
                system; the last holds a list of objects.

        Raises:
            SpecError: If it is missing or of another kind, or cannot be fetched.
        """
        self.uri = str(uri)
        suffix = PurePosixPath(self.uri).suffix.lower()
        if suffix not in _READERS:
            raise SpecError(f"cannot read {uri}: expected a file ending in {', '.join(_READERS)}")
        self._read = _READERS[suffix]
        try:
            file_system, path = fsspec.url_to_fs(self.uri)
            self._path = Path(path)
            if not isinstance(file_system, LocalFileSystem):
                self._path = _temporary(self, suffix)
                file_system.get_file(path, str(self._path))
            self._num_bytes = self._path.stat().st_size
        except (OSError, ValueError) as error:
            raise SpecError(f"cannot read {uri}: {error}") from error

    def changed(self, before: str) -> SpecError:
        """What to raise where the list is not what it was.

        Args:
            before: What was otherwise when it was first read.
        """
        return SpecError(f"{self.uri} changed since it was first read: {before} then; start again")

    def __iter__(self) -> Iterator[Row]:
        """All rows; raises as ``rows`` does."""
        return self.rows()

    def rows(self, only: Iterable[int] | None = None) -> Iterator[Row]:
        """Rows in order.

        Args:
            only: Numbers of the rows that are wanted, ascending, by default all; taken one by one
                as rows are read. The others cost little, and a number that no row has is passed by.

        Raises:
            SpecError: If the file is damaged, or has another size than at first; at the end, if
                rows were faulty, which are listed together.
        """
        faults = FaultList(_MAX_LISTED_FAULTS)
        try:
            if self._path.stat().st_size != self._num_bytes:
                raise self.changed(f"it had {self._num_bytes} bytes")
            yield from self._read(self._path, faults, only)
        except UnicodeDecodeError as error:
            line = _first_undecodable(self._path)
            raise SpecError(f"cannot read {self.uri}: line {line} is not UTF-8 text") from error
        except (OSError, ValueError) as error:
            raise SpecError(f"cannot read {self.uri}: {error}") from error
        if faults.count:
            raise SpecError(faults.text(f"{self.uri} has {faults.count} faulty row(s):"))


def _temporary(owner: object, suffix: str) -> Path:
    """An empty file that is removed with its owner."""
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
        path = Path(file.name)
    weakref.finalize(owner, path.unlink, missing_ok=True)
    return path


def _first_undecodable(path: Path) -> int:
    """Number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise AssertionError("a file that was decoded in vain has such a line")


def _wanted(rows: Iterator[tuple[int, T]], only: Iterable[int] | None) -> Iterator[tuple[int, T]]:
    """Those of numbered rows that are asked for."""
    if only is None:
        yield from rows
        return
    for wanted in only:
        for number, row in rows:
            if number == wanted:
                yield number, row
            if number >= wanted:
                break
        else:
            return


def _read_jsonl(path: Path, faults: FaultList, only: Iterable[int] | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in _wanted(enumerate(file, start=1), only):
            if not line.strip():
                continue
            try:
                value = _parse_json(line)
            except ValueError as error:
                faults.add(number, f"line {number} is not JSON: {error}")
                continue
            if isinstance(value, dict):
                yield Row(number, _present(value))
            else:
                kind = type(value).__name__
                faults.add(number, f"line {number} is not a JSON object but a {kind}")


def _read_csv(path: Path, faults: FaultList, only: Iterable[int] | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = _csv_records(file, faults)
        _, header = next(records, (0, None))
        if header is None:
            raise ValueError("it has no header line")
        columns = _checked_columns([cell.strip() for cell in header])
        for number, cells in _wanted(records, only):
            if len(cells) != len(columns):
                said = f"line {number} has {len(cells)} cells; the header has {len(columns)}"
                faults.add(number, said)
                continue
            named = zip(columns, cells, strict=True)
            try:
                yield Row(number, {name: _parse_cell(cell) for name, cell in named if cell.strip()})
            except ValueError as error:
                faults.add(number, f"line {number} has a cell with damaged JSON: {error}")


def _csv_records(file: Iterable[str], faults: FaultList) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row that is not blank, the header's first."""
    reader = csv.reader(file, strict=True)
    while True:
        # A row can span lines, and the reader counts those that it has finished.
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.add(number, f"line {number} is not CSV: {error}")
            continue
        if any(cell.strip() for cell in cells):
            yield number, cells


def _read_parquet(
    path: Path,
    faults: FaultList,  # noqa: ARG001 - as the others
    only: Iterable[int] | None,
) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, (rows, index) in _wanted(_parquet_records(file), only):
            yield Row(number, _present(rows()[index]))


def _read_json(path: Path, faults: FaultList, only: Iterable[int] | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, element in _wanted(enumerate(elements(file), start=1), only):
            if element.fault is not None:
                faults.add(number, f"row {number} is not JSON: {element.fault}")
            elif isinstance(element.value, dict):
                yield Row(number, _present(element.value))
            else:
                kind = type(element.value).__name__
                faults.add(number, f"row {number} is not a JSON object but a {kind}")


def _parquet_records(
    file: BinaryIO,
) -> Iterator[tuple[int, tuple[Callable[[], list[dict[str, Any]]], int]]]:
    """Where each row is found: in a batch, which becomes plain values when it is asked for."""
    number = 0
    try:
        table = pq.ParquetFile(file, buffer_size=_PARQUET_BUFFER)
        _checked_columns(table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_PARQUET_BATCH):
            rows = cache(batch.to_pylist)
            for index in range(batch.num_rows):
                number += 1
                yield number, (rows, index)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not a Parquet file: {error}") from error


_READERS: dict[str, Callable[[Path, FaultList, Iterable[int] | None], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".json": _read_json,
}

SUFFIXES = tuple(_READERS)
"""Endings of the files that a ``Manifest`` reads."""


def _checked_columns(names: list[str]) -> list[str]:
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"its columns need names that differ, not {names}")
    return names


def _parse_cell(cell: str) -> object:
    text = cell.strip()
    if text[0] not in "[{":
        return cell
    try:
        return _parse_json(text)
    except ValueError:
        # Prompts may open with a bracket ("[VISUAL]: a cat"), but hardly with two marks of JSON.
        if text[1:].lstrip()[:1] in ('"', "[", "{"):
            raise
        return cell


def _parse_json(text: str) -> Any:  # noqa: ANN401 - whatever the text holds
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        # Without its own line number, which counts within the text.
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _present(value: Any) -> Any:  # noqa: ANN401 - the same type comes out
    """The value without nulls and NaN in its objects; pandas writes either for a missing cell."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if not _is_null(item)}
    if isinstance(value, list):
        return [_present(item) for item in value]
    return value


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
