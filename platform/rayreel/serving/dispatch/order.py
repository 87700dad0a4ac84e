"""In which order jobs run, and which share a batch: decided from what is known, nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayreel.config.serving import Priority, QueueSpec
from rayreel.pipelines.chunks import is_chained
from rayreel.serving.jobs import Job

_AFTER: dict[Priority, int] = {"high": -1, "normal": 0, "low": 1}


def due(created_at: float, cost_s: float, priority: Priority, queue: QueueSpec) -> float:
    """Place of a new job in the queue, which it keeps: whoever has the smallest goes first.

    A job waits for those that came before it, for shorter ones that came up to ``stretch`` times
    the difference later, and for those of higher priority that came not much later. Nobody waits
    for ever, as whoever comes late enough is behind.

    Args:
        created_at: When it came, in seconds since 1970.
        cost_s: Seconds that all its stages take.
        priority: Its class.
        queue: How much cost and priority count.
    """
    return created_at + queue.stretch * cost_s + _AFTER[priority] * queue.priority_s


def is_single(job: Job) -> bool:
    """Whether a job has its batch for itself: it lost a worker, or is rendered in chunks."""
    return job.alone or is_chained(job.request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be done next.

    Attributes:
        batch: Jobs of one batch, in order; empty if none is to go now.
        wait_s: In how many seconds one will go if no more jobs come; ``None`` if none will.
    """

    batch: tuple[Job, ...] = ()
    wait_s: float | None = None


def next_batch(
    queued: Sequence[Job], *, batch_size: int, now: float, batch_wait_s: float, free: int
) -> Choice:
    """The batch that goes now.

    A batch is a job and the next ones of the same key. It goes when it is full, or when its first
    job has waited for long enough. While it waits, those behind it may go only if a place for it
    stays free.

    Args:
        queued: In order.
        batch_size: Most jobs of a batch.
        now: In seconds since 1970.
        batch_wait_s: How long a job waits for like ones.
        free: Batches that may begin.
    """
    waits = []
    for batch in _batches(queued, batch_size)[: max(0, free)]:
        waited = now - batch[0].created_at
        # Another node's clock may be ahead; its jobs shall not wait for ours to follow.
        ready = len(batch) == batch_size or not 0 <= waited < batch_wait_s
        if ready or is_single(batch[0]):
            return Choice(batch=tuple(batch))
        waits.append(batch_wait_s - waited)
    return Choice(wait_s=min(waits, default=None))


def _batches(queued: Sequence[Job], batch_size: int) -> list[list[Job]]:
    """All jobs as batches, in the order of their first ones."""
    batches: list[list[Job]] = []
    open_: dict[str, list[Job]] = {}
    for job in queued:
        single = is_single(job)
        batch = None if single else open_.get(job.batch_key)
        if batch is not None and len(batch) < batch_size:
            batch.append(job)
            continue
        batches.append([job])
        if not single:
            open_[job.batch_key] = batches[-1]
    return batches
