"""Rows of a run with what became of them, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from rayreel.data.ledger_entry import LedgerEntry
from rayreel.data.ledger_table import LedgerTable
from rayreel.runs.requests import PlannedRow, RowPlan

_AT_ONCE = 10_000
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A row, and what became of its clip.

    Attributes:
        row: What was asked.
        entry: Line of the ledger; ``None`` if the run ended before the clip's turn.
        names: Of the rows that ask for this clip, in the first of them; ``None`` in others.
    """

    row: PlannedRow
    entry: LedgerEntry | None
    names: str | None

    @property
    def status(self) -> Literal["done", "failed", "left"]:
        """What became of the clip; ``left`` if nothing did."""
        return self.entry.status if self.entry else "left"

    @property
    def seconds(self) -> float:
        """Time spent on the clip."""
        return sum(self.entry.seconds.values()) if self.entry else 0.0


def legible(text: str) -> str:
    """A name or prompt as files of UTF-8 can hold it: JSON can write what no text has."""
    return text.encode(errors="replace").decode()


def read_outcomes(rows: RowPlan, table: LedgerTable) -> Iterator[list[Outcome]]:
    """All rows in order, some thousand at once.

    Args:
        rows: The prompt list, which is read again.
        table: The ledger.

    Raises:
        SpecError: If the list is not what it was.
    """
    is_first, names_of = _shared_clips(rows)
    left = enumerate(rows)
    while batch := list(islice(left, _AT_ONCE)):
        entries = table.entries([row.item_id for _, row in batch])
        yield [
            Outcome(
                row=row,
                entry=entry,
                names=names_of.get(row.item_id, row.name) if is_first[index] else None,
            )
            for (index, row), entry in zip(batch, entries, strict=True)
        ]


def _shared_clips(rows: RowPlan) -> tuple[np.ndarray, dict[str, str]]:
    """Which rows are the first that ask for their clip, and names of rows that ask for the same."""
    ids, first, counts = np.unique(rows.item_ids, return_index=True, return_counts=True)
    is_first = np.zeros(len(rows), dtype=bool)
    is_first[first] = True
    shared = counts > 1
    left = dict(zip(ids[shared].astype(str).tolist(), counts[shared].tolist(), strict=True))
    names: dict[str, str] = {}
    if not left:
        return is_first, names
    listed = dict.fromkeys(left, 0)
    for row in rows.rows(left.__contains__):
        listed[row.item_id] += 1
        if listed[row.item_id] == 1:
            names[row.item_id] = row.name
        elif listed[row.item_id] <= _MOST_NAMES:
            names[row.item_id] += f", {row.name}"
    for item_id, count in left.items():
        if count > _MOST_NAMES:
            names[item_id] += f" and {count - _MOST_NAMES} more"
    return is_first, names
