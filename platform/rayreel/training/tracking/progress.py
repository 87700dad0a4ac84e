"""The moving line of a run: steps, loss, tokens per second, and when it will be done."""

import sys
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from tqdm import tqdm

_RECENT = 20


class TrainingProgress:
    """A progress bar, as a context, that is told each line of the metrics."""

    def __init__(self, steps: int, *, done: int = 0) -> None:
        """Show nothing yet.

        Args:
            steps: Optimiser steps of the whole run.
            done: Of those, what earlier processes have done.
        """
        self._steps, self._done = steps, done
        self._began = False
        self._losses: deque[float] = deque(maxlen=_RECENT)
        self._speeds: deque[tuple[int, float]] = deque(maxlen=_RECENT)

    def __enter__(self) -> Self:
        """Show the bar."""
        # A log file takes a line of progress now and then, and a terminal a moving bar.
        interval_s = 0.1 if sys.stderr.isatty() else 10
        self._bar: tqdm[NoReturn] = tqdm(
            total=self._steps,
            initial=self._done,
            unit="step",
            desc="starting",
            # Steps of different shapes follow each other, and validation comes between them.
            smoothing=0.05,
            mininterval=interval_s,
            dynamic_ncols=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def update(self, line: Mapping[str, Any]) -> None:
        """Count a step.

        Args:
            line: Of the metrics; a run that lost workers may go on from an earlier one.
        """
        if not self._began:
            # What comes first has waited for workers and weights: it does not count for the rate.
            self._began = True
            self._bar.unpause()
            self._bar.initial = self._bar.n = self._bar.last_print_n = line["step"] - 1
            self._bar.set_description("training", refresh=False)
        self._losses.append(line["loss"])
        self._speeds.append((line["tokens"], line["seconds"]))
        tokens, seconds = map(sum, zip(*self._speeds, strict=True))
        self._bar.set_postfix_str(
            f"loss={sum(self._losses) / len(self._losses):.4g}, "
            f"lr={line['learning_rate']:.2e}, {_count(tokens / seconds)} tokens/s",
            refresh=False,
        )
        self._bar.update(line["step"] - self._bar.n)


def _count(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"
