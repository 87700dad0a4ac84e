"""Prompt lists and dataset lists: JSONL, CSV or Parquet to rows of plain values."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from rayreel.errors import SpecError

_MAX_LISTED_FAULTS = 100


class Row(NamedTuple):
    """One row of a list.

    Attributes:
        number: Where a person finds it: the line on which it starts in a JSONL or CSV file, the row
            in a Parquet file; from 1.
        values: By column; what is empty or null is absent.
    """

    number: int
    values: dict[str, Any]


def read_manifest(uri: str | Path) -> list[Row]:
    """Read a list of prompts or of media.

    CSV cells are text, except that a cell which holds a JSON object or list becomes that.

    Args:
        uri: File ending in ``.jsonl``, ``.csv`` or ``.parquet``, on any fsspec file system.

    Raises:
        SpecError: If the file is missing or of another kind, or if rows are faulty; the message
            lists them together.
    """
    suffix = PurePosixPath(str(uri)).suffix.lower()
    if suffix not in _READERS:
        raise SpecError(f"cannot read {uri}: expected a file ending in {', '.join(_READERS)}")
    faults: list[str] = []
    try:
        file_system, path = fsspec.url_to_fs(str(uri))
        rows = list(_READERS[suffix](file_system.cat_file(path), faults))
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read {uri}: {error}") from error
    if faults:
        listed = faults[:_MAX_LISTED_FAULTS]
        if len(faults) > len(listed):
            listed.append(f"and {len(faults) - len(listed)} more")
        raise SpecError("\n  ".join([f"{uri} has {len(faults)} faulty row(s):", *listed]))
    return rows


def _read_jsonl(data: bytes, faults: list[str]) -> Iterator[Row]:
    # Not splitlines(), which also splits at characters that may stand in a JSON string (U+2028).
    for number, line in enumerate(io.StringIO(_decode(data), newline=None), start=1):
        if not line.strip():
            continue
        try:
            value = _parse_json(line)
        except ValueError as error:
            faults.append(f"line {number} is not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(number, _present(value))
        else:
            faults.append(f"line {number} is not a JSON object but a {type(value).__name__}")


def _read_csv(data: bytes, faults: list[str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_decode(data), newline=""), strict=True)
    columns: list[str] | None = None
    while True:
        # A row can span lines, and the reader counts those that it has finished.
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            faults.append(f"line {number} is not CSV: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = _checked_columns([cell.strip() for cell in cells])
        elif len(cells) != len(columns):
            faults.append(f"line {number} has {len(cells)} cells; the header has {len(columns)}")
        else:
            named = zip(columns, cells, strict=True)
            try:
                yield Row(number, {name: _parse_cell(cell) for name, cell in named if cell.strip()})
            except ValueError as error:
                faults.append(f"line {number} has a cell with damaged JSON: {error}")
    if columns is None:
        raise ValueError("it has no header line")


def _read_parquet(data: bytes, faults: list[str]) -> Iterator[Row]:  # noqa: ARG001 - as the others
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not a Parquet file: {error}") from error
    _checked_columns(table.column_names)
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(number, _present(values))


_READERS: dict[str, Callable[[bytes, list[str]], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}

SUFFIXES = tuple(_READERS)
"""Endings of the files that ``read_manifest`` reads."""


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text") from error


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
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        # Without its own line number, which counts within the text.
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _present(value: Any) -> Any:  # noqa: ANN401 - the same type comes out
    """The value without nulls and NaN in its objects; pandas writes either for a missing cell."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if not _is_null(item)}
    if isinstance(value, list):
        return [_present(item) for item in value]
    return value


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
