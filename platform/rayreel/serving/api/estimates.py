"""How far a job is, and when it will be done."""

from rayreel.config.jobs import StageName
from rayreel.serving.jobs import Job, Place
from rayreel.serving.load import Load, PoolLoad

_ORDER: tuple[StageName, ...] = ("text", "stage1", "stage2", "decode")


def share_done(job: Job) -> float:
    """Share of a job's work that is done, in ``[0, 1]``, by what its stages are known to cost."""
    if job.state == "done":
        return 1.0
    if job.state == "queued" or job.stage not in _ORDER:
        return 0.0
    before = _ORDER[: _ORDER.index(job.stage)]
    done_s = sum(job.stage_s.get(stage, 0.0) for stage in before)
    if job.steps:
        done_s += job.stage_s.get(job.stage, 0.0) * min(job.step / job.steps, 1.0)
    total_s = sum(job.stage_s.values())
    return min(done_s / total_s, 1.0) if total_s else 0.0


def eta_s(job: Job, place: Place | None, load: Load | None) -> float | None:
    """Seconds until a job is done; ``None`` once it is finished.

    Jobs go through the pools one behind the other: whoever is last waits for the pool in which the
    work of those before it takes longest. What those are made of is taken to be like this job.

    Args:
        job: The job.
        place: Where it stands, if it is queued.
        load: Of the pools, if that is known; else one actor of each is taken to do the work.
    """
    if job.finished:
        return None
    own_s = job.cost_s * (1 - share_done(job))
    if place is None:
        return own_s
    pools = load.pools if load else {}
    waits = [_wait_s(job, place, name, pool) for name, pool in pools.items()]
    starts = [pool.start_s for pool in pools.values() if pool.replicas == 0]
    return max(waits, default=place.ahead_s) + max(starts, default=0.0) + own_s


def _wait_s(job: Job, place: Place, name: str, pool: PoolLoad) -> float:
    share = 1.0
    if name in _ORDER and job.cost_s:
        share = job.stage_s.get(name, 0.0) / job.cost_s
    return (place.ahead_s * share + pool.running_s) / max(pool.replicas, 1)
