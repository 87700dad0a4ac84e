"""What a dispatcher is given, and what it tells of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rayreel.config.serving import QueueSpec
from rayreel.serving.jobs import Job, Output

What = Literal["taken", "done", "failed", "cancelled", "released"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSettings:
    """How jobs are dispatched.

    Attributes:
        queue: Order, patience and tries.
        batch_size: Most jobs of a batch.
        retention_s: How long finished jobs are kept; ``None`` for ever.
        keep: Removes the files of an expired job; called in a thread.
        is_done: The file of a job that an earlier try finished; called in a thread, and only for
            second and later tries.
    """

    queue: QueueSpec
    batch_size: int
    retention_s: float | None
    keep: Callable[[Job], None]
    is_done: Callable[[Job], Output | None]

    def expires_at(self, now: float) -> float | None:
        """When a job that is finished now is removed."""
        return None if self.retention_s is None else now + self.retention_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that became of a job, and is in the store.

    Attributes:
        what: ``released`` is back in the queue.
        job: As it was taken.
        at: In seconds since 1970.
        seconds: Time that each stage took in this try.
        error: Code of what went wrong.
    """

    what: What
    job: Job
    at: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def ignore(event: Event) -> None:
    """Whoever wants to hear nothing."""
