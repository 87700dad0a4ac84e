"""The moving bar of an encode job: rows that are settled, and where those of this wave are."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

_WORDS = {
    "scan": "scanning",
    "caption": "captioning",
    "text": "encoding texts",
    "latents": "encoding clips",
    "shards": "writing shards",
}


class RowProgress:
    """Counts rows, and the items of the pass that is at work."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar
        self._of, self._done = 0, 0
        self._shown = 0.0
        self._counts: dict[str, int] = {}

    def enter(self, name: str, items: int) -> None:
        """A pass begins.

        Args:
            name: Of the pass.
            items: That go through it.
        """
        self._of, self._done = items, 0
        self._bar.set_description(_WORDS[name], refresh=False)
        self._show()

    def advance(self) -> None:
        """An item has gone through the pass."""
        self._done += 1
        self._show()

    def settle(self, rows: int, counts: dict[str, int]) -> None:
        """Rows of a wave are done with.

        Args:
            rows: How many.
            counts: Samples so far, by what became of them.
        """
        self._counts = counts
        self._of = 0
        self._bar.update(rows)
        self._show()

    def tell(self, line: str) -> None:
        """Say something above the bar."""
        self._bar.write(line, file=sys.stderr)

    def _show(self) -> None:
        at = {"items": f"{self._done}/{self._of}"} if self._of else {}
        self._bar.set_postfix({**at, **self._counts}, refresh=False)
        # The bar itself moves with rows alone, and items of a pass are many.
        if time.monotonic() - self._shown > self._bar.mininterval:
            self._shown = time.monotonic()
            self._bar.refresh()


@contextmanager
def following_rows(rows: int) -> Iterator[RowProgress]:
    """Show a run until the block ends.

    Args:
        rows: Of the list.
    """
    # A log file takes a line of progress now and then, and a terminal a moving bar.
    interval_s = 0.1 if sys.stderr.isatty() else 10
    with tqdm(total=rows, unit="row", desc="looking", smoothing=0, mininterval=interval_s) as bar:
        yield RowProgress(bar)
