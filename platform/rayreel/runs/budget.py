"""The error budget: a run that fails everywhere is stopped."""

from collections import Counter

from rayreel.errors import RunStopped
from rayreel.stages.base import ItemFailure

_FIRST = 100
_MOST_REASONS = 5


class ErrorBudget:
    """Counts what fails, against a share of what was finished."""

    def __init__(self, share: float, clips: int) -> None:
        """Nothing has failed yet.

        Args:
            share: Of the clips finished so far that may fail, in [0, 1].
            clips: That are to be rendered. The share counts of the first 100 at least, or of all
                where there are fewer: one early failure is no tendency.
        """
        self._share = share
        self._first = min(clips, _FIRST)
        self._finished = 0
        self._reasons: Counter[tuple[str, str, str]] = Counter()

    def count(self, failure: ItemFailure | None) -> None:
        """Count a clip that is finished, one way or the other.

        Raises:
            RunStopped: If more failed than may, with the most frequent reason first.
        """
        self._finished += 1
        if failure is None:
            return
        self._reasons[failure.stage, failure.error, _gist(failure.message)] += 1
        failed, base = self._reasons.total(), max(self._finished, self._first)
        if failed <= self._share * base:
            return
        reasons = [
            f"{count} x {error} in {stage}: {said}"
            for (stage, error, said), count in self._reasons.most_common(_MOST_REASONS)
        ]
        raise RunStopped(
            "\n  ".join(
                [
                    f"stopped: {failed} of {self._finished} clips failed, more than "
                    f"{self._share:.1%} of {base}; what is finished is kept. The reasons:",
                    *reasons,
                ]
            )
        )


def _gist(message: str) -> str:
    """What messages about different files or numbers have in common: their words."""
    words = message.splitlines()[0].split() if message else []
    return " ".join(word for word in words if not any(c.isdigit() or c == "/" for c in word))
