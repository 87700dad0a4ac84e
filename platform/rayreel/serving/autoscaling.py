"""How many actors a pool has: as many as do the work that waits in the time it may wait."""

import math
import time
from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from rayreel.config.jobs import StageSpec
from rayreel.config.serving import ScalingSpec
from rayreel.serving import board
from rayreel.serving.load import Load, PoolLoad

# Serve asks ten times a second, for each pool; loads are told less often.
_READ_EVERY_S = 1.0
_STALE_S = 30.0


class WorkPolicy:
    """Actors of one pool by the work that waits for it, in seconds instead of requests.

    A request is a picture in a second or a clip in ten minutes, so their number says little. Of the
    seconds that all waiting and running jobs still take the pool, each actor gets as many as a job
    may wait. The pool grows at once, but not beyond one actor per job, and shrinks once fewer were
    enough for some time. Without any work it keeps the fewest, or none after a longer time; then
    the next job wakes it.

    Serve's controller holds one for each pool, and asks it there.
    """

    def __init__(
        self,
        *,
        application: str,
        pool: str,
        target_wait_s: float,
        shrink_s: float,
        idle_s: float | None,
        min_replicas: int,
        max_replicas: int,
    ) -> None:
        """Say what is scaled, and how.

        Args:
            application: Name of the Serve application, whose load is read.
            pool: Name of the pool in it.
            target_wait_s: Seconds of work for an actor.
            shrink_s: How long fewer actors must have been enough.
            idle_s: After how long without work there are none; ``None`` for never.
            min_replicas: Actors that there are else, at least.
            max_replicas: At most.
        """
        self._application = application
        self._pool = pool
        self._target_wait_s = target_wait_s
        self._shrink_s = shrink_s
        self._idle_s = math.inf if idle_s is None else idle_s
        self._min = min_replicas
        self._max = max_replicas
        self._load: Load | None = None
        self._read_at = -math.inf
        self._heard_at = -math.inf

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Actors that there shall be, by the load that was told last, and what to remember.

        Nothing changes while nothing is told: without a dispatcher nobody knows the work.
        """
        now, target = time.monotonic(), context.target_num_replicas
        load = self._told(now)
        if load is None:
            return target, dict(context.policy_state)
        return self.decide(load, target, now, context.policy_state)

    def decide(
        self, load: PoolLoad, replicas: int, now: float, memory: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Actors that there shall be.

        Args:
            load: Of the pool.
            replicas: Actors that there shall be so far.
            now: Time by a clock that is never put back, in seconds.
            memory: What was remembered last time; empty at first.

        Returns:
            Their number, and what to remember.
        """
        if not load.jobs and (load.idle_s >= self._idle_s or replicas == 0):
            return 0, {}
        needed = self._needed(load)
        # How many were needed when, later and smaller from one to the next: the first is the most
        # that were needed lately. What is there at first was needed as far as anybody knows.
        recent: list[tuple[float, int]] = memory.get("needed", [(now, replicas)])
        recent = [(at, n) for at, n in recent if n > needed and now - at < self._shrink_s]
        recent.append((now, needed))
        return recent[0][1], {"needed": recent}

    def _needed(self, load: PoolLoad) -> int:
        work_s = load.waiting_s + load.running_s
        # More than one actor per job would have nothing to do.
        useful = min(math.ceil(work_s / self._target_wait_s), load.jobs)
        return min(max(useful, self._min), self._max)

    def _told(self, now: float) -> PoolLoad | None:
        """The load, if it is one of these seconds: by this clock, as nodes disagree on the time."""
        if now - self._read_at >= _READ_EVERY_S:
            self._read_at = now
            load = board.read(self._application)
            # One that was there before this policy may be of any age.
            if load and self._load and load.at != self._load.at:
                self._heard_at = now
            self._load = load or self._load
        if self._load is None or now - self._heard_at > _STALE_S:
            return None
        return self._load.pools.get(self._pool)


def autoscaling_config(
    pool: str, stage: StageSpec, scaling: ScalingSpec, application: str
) -> AutoscalingConfig | None:
    """How Serve scales a pool.

    Args:
        pool: Its name in the load.
        stage: Fewest and most actors.
        scaling: How it follows the work.
        application: Name of the Serve application.

    Returns:
        ``None`` for a pool that always has ``stage.replicas``.
    """
    most = stage.max_replicas or stage.replicas
    if most == stage.replicas and scaling.idle_s is None:
        return None
    values = {
        "application": application,
        "pool": pool,
        "target_wait_s": scaling.target_wait_s,
        "shrink_s": scaling.shrink_s,
        "idle_s": scaling.idle_s,
        "min_replicas": stage.replicas,
        "max_replicas": most,
    }
    return AutoscalingConfig(
        min_replicas=stage.replicas if scaling.idle_s is None else 0,
        initial_replicas=stage.replicas,
        max_replicas=most,
        # The policy's own times are all there are.
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        downscale_to_zero_delay_s=0.0,
        # Serve wakes a pool by itself for requests of half a minute ago, unless there were times
        # without any in between.
        aggregation_function="min",
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function=f"{__name__}:{WorkPolicy.__name__}", policy_kwargs=values
        ),
    )
