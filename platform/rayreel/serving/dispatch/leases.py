"""Which running jobs nobody runs any more, told without comparing clocks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rayreel.serving.jobs import Job


@dataclass(frozen=True, slots=True)
class _Sign:
    lease: str
    beat: int
    seen_at: float


class Watch:
    """Running jobs of other dispatchers: one that gives no new sign for too long is stale."""

    def __init__(self, stale_s: float) -> None:
        """Nothing was seen yet.

        Args:
            stale_s: How long a job may give no sign.
        """
        self._stale_s = stale_s
        self._signs: dict[str, _Sign] = {}

    def stale(self, running: Sequence[Job], mine: Collection[str], now: float) -> list[Job]:
        """Jobs that are to be taken over.

        Args:
            running: As they are now.
            mine: Leases to leave out.
            now: By a clock that is never put back.
        """
        before, self._signs = self._signs, {}
        stale = []
        for job in running:
            if job.lease in mine:
                continue
            sign = before.get(job.job_id)
            if sign is None or (sign.lease, sign.beat) != (job.lease, job.beat):
                sign = _Sign(job.lease, job.beat, now)
            elif now - sign.seen_at >= self._stale_s:
                stale.append(job)
            self._signs[job.job_id] = sign
        return stale

    def forget(self) -> None:
        """Start again: while the store was away no dispatcher could give a sign."""
        self._signs = {}
