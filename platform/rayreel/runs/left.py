"""What a run has still to do: its list, without what the ledger says is finished."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from rayreel.config.request import RenderRequest
from rayreel.data.ledger import LedgerTable
from rayreel.runs.requests import PlannedRow, RowPlan

Retry = Literal["none", "failed"]

_WANTED = {"none": None, "failed": "failed"}


class Left:
    """What a run has still to do.

    Attributes:
        clips: How many.
    """

    def __init__(self, rows: RowPlan, table: LedgerTable, *, retry: Retry, attempts: int) -> None:
        """Compare a list with what became of it.

        Args:
            rows: The list.
            table: The ledger of the run.
            retry: ``failed``: those that have failed, and no others.
            attempts: How often those are tried whose worker was lost, or the like.
        """
        self._rows = rows
        self._table = table
        ids = np.unique(rows.item_ids)
        keep = np.array([status == _WANTED[retry] for status in table.status(ids)], dtype=bool)
        if retry == "none":
            keep |= np.isin(ids, _unsettled(table, attempts))
        self._wanted = ids[keep]
        self.clips = len(self._wanted)

    def rows(self) -> Iterator[PlannedRow]:
        """Their rows, in the order of the list."""
        return self._rows.rows(self._is_wanted)

    def shapes(self) -> list[tuple[RenderRequest, int]]:
        """What can share batches: an example of each kind, and how many clips of it are left."""
        return self._rows.shapes(self._wanted)

    def only(self, item_ids: Iterable[str]) -> "Left":
        """Some of them, and no others."""
        some = copy.copy(self)
        some._wanted = np.intersect1d(self._wanted, np.array([*item_ids], dtype="S32"))
        some.clips = len(some._wanted)
        return some

    def attempt(self, item_id: str) -> int:
        """Which try of a clip the next one is."""
        entry = self._table.entry(item_id)
        return entry.attempt + 1 if entry else 1

    def _is_wanted(self, item_id: str) -> bool:
        place = int(np.searchsorted(self._wanted, item_id.encode()))
        return place < len(self._wanted) and self._wanted[place] == item_id.encode()


def _unsettled(table: LedgerTable, attempts: int) -> "np.ndarray[Any, Any]":
    """Clips whose failure was not final: they were to be tried again when the driver ended."""
    lines = table.table
    again = pc.and_(lines["error_retryable"], pc.less(lines["attempt"], attempts))
    ids: np.ndarray[Any, Any] = table.ids[pc.fill_null(again, False).to_numpy()]
    return ids
