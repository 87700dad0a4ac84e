"""How busy the pools are, from the queue as it was a second ago and from what runs now."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rayreel.serving.dispatch.batch import Standing
from rayreel.serving.jobs import Job
from rayreel.serving.load import Load, PoolLoad
from rayreel.serving.pools import Pool
from rayreel.serving.store import Totals


@dataclass(frozen=True, slots=True)
class _Queue:
    jobs: int
    waiting_s: dict[str, float]


class Estimates:
    """What waits, as it was when it was looked at last."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        """Nothing waits.

        Args:
            pools: All, in order.
        """
        self._pools = pools
        self._queue = _Queue(0, {})
        self._busy_at = dict.fromkeys((pool.name for pool in pools), time.monotonic())

    def saw(self, first: Sequence[Job], totals: Totals) -> None:
        """The queue was looked at.

        Args:
            first: Jobs at its head, all or some; the others are taken to be like these.
            totals: Of all.
        """
        cost_s = sum(job.cost_s for job in first)
        more = max(1.0, totals.queued_s / cost_s) if cost_s and totals.queued > len(first) else 1.0
        waiting_s = {
            pool.name: more
            * sum(job.stage_s.get(stage, 0.0) for job in first for stage in pool.stages)
            for pool in self._pools
        }
        self._queue = _Queue(max(totals.queued, len(first)), waiting_s)

    def load(self, standings: Iterable[Standing]) -> Load:
        """How busy the pools are.

        Args:
            standings: Of all jobs that run.
        """
        running = list(standings)
        return Load(
            at=time.time(),
            pools={
                pool.name: self._of_pool(index, pool, running)
                for index, pool in enumerate(self._pools)
            },
        )

    def _of_pool(self, index: int, pool: Pool, running: Sequence[Standing]) -> PoolLoad:
        needing = [standing for standing in running if standing.pool <= index]
        jobs, now = self._queue.jobs + len(needing), time.monotonic()
        if jobs:
            self._busy_at[pool.name] = now
        return PoolLoad(
            replicas=pool.replicas,
            waiting_s=self._queue.waiting_s.get(pool.name, 0.0),
            running_s=sum(_left_s(pool, standing) for standing in needing),
            jobs=jobs,
            idle_s=now - self._busy_at[pool.name],
        )


def _left_s(pool: Pool, standing: Standing) -> float:
    """Seconds that a job still takes a pool that it needs."""
    step = standing.step
    if step is None or step.stage not in pool.stages:
        return sum(standing.job.stage_s.get(stage, 0.0) for stage in pool.stages)
    at = pool.stages.index(step.stage)
    left = 1.0 - step.step / step.steps if step.steps else 1.0
    later = sum(standing.job.stage_s.get(stage, 0.0) for stage in pool.stages[at + 1 :])
    return max(0.0, left) * standing.job.stage_s.get(step.stage, 0.0) + later
