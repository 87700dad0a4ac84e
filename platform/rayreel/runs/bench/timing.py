"""Two ways to do the same work, timed by turns."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MOST_CALLS = 300
_LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True, slots=True)
class Race:
    """Seconds of the fastest call of each."""

    ours: float
    theirs: float

    def line(self, baseline: str) -> dict[str, Any]:
        """Fields of a result."""
        return {
            "seconds": float(f"{self.ours:.4g}"),
            "baseline": baseline,
            "baseline_seconds": float(f"{self.theirs:.4g}"),
            "speed_up": round(self.theirs / self.ours, 3),
        }


def race(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> Race:
    """Call both by turns, so that whatever else the machine does slows down both.

    Args:
        ours: One way.
        theirs: The other way.
        seconds: When to stop; two calls of each are made in any case.
    """
    fastest = [float("inf"), float("inf")]
    for _ in turns(seconds):
        for which, call in enumerate((ours, theirs)):
            start = time.perf_counter()
            call()
            fastest[which] = min(fastest[which], time.perf_counter() - start)
    return Race(*fastest)


def turns(seconds: float) -> Iterator[int]:
    """Numbers of turns until the time is over; two in any case."""
    end = time.perf_counter() + seconds
    for turn in range(_MOST_CALLS):
        yield turn
        if turn and time.perf_counter() > end:
            break


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference between two results, as a part of the largest value.

    Raises:
        ValueError: If it is too large for rounding: what is timed would not be the same work.
    """
    found = float((ours - theirs).abs().max() / theirs.abs().max())
    if not found <= _LARGEST_DIFFERENCE:
        raise ValueError(
            f"results differ by {found:.1e} of the largest value, more than {_LARGEST_DIFFERENCE}: "
            "this is not the same work"
        )
    return found


def surroundings() -> dict[str, Any]:
    """What else a time depends on; the load is what all processes of the last minute asked for."""
    return {
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
