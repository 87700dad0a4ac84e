"""What a store tells besides jobs, and why it refuses one."""

from dataclasses import dataclass

from rayreel.errors import RayreelError
from rayreel.serving.jobs import Job


class KeyReused(RayreelError):  # noqa: N818 - what a client did
    """An idempotency key came again, with another request.

    Attributes:
        key: The client's key.
        job_id: The job that it made the first time.
    """

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(key, job_id)
        self.key = key
        self.job_id = job_id

    def __str__(self) -> str:
        """Say what was expected."""
        return (
            f"idempotency key {self.key!r} came with another request before, which made "
            f"{self.job_id}; expected a new key, or that request again"
        )


class QueueFull(RayreelError):  # noqa: N818 - a limit that was asked for
    """As many jobs wait as may.

    Attributes:
        limit: Jobs that may wait.
        queued: Jobs that do.
        owner: Whether the limit is that of one API key, not of all.
    """

    def __init__(self, limit: int, queued: int, owner: bool) -> None:
        super().__init__(limit, queued, owner)
        self.limit = limit
        self.queued = queued
        self.owner = owner

    def __str__(self) -> str:
        """Say which limit it was."""
        whose = "jobs of this API key" if self.owner else "jobs"
        return f"{self.queued} {whose} wait, and {self.limit} may; expected one when fewer do"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs of a list.

    Attributes:
        jobs: In the order of the list.
        more: Whether others follow.
    """

    jobs: tuple[Job, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much there is to do.

    Attributes:
        queued: Jobs that wait.
        queued_s: What they cost together, in seconds.
        running: Jobs that run.
        running_s: What they cost from start to end, likewise.
        oldest_created_at: When the job came that has waited longest; ``None`` if none waits.
    """

    queued: int
    queued_s: float
    running: int
    running_s: float
    oldest_created_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """What a dispatcher learns when it gives a sign of life for some jobs.

    Attributes:
        lost: Those that are not its own any more.
        cancelling: Those that are asked to stop.
    """

    lost: frozenset[str]
    cancelling: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key, without its secret.

    Attributes:
        key_id: Owner of the jobs that come with it.
        name: What a person calls it.
        created_at: When it was made.
        revoked_at: Since when it is refused, if it is.
    """

    key_id: str
    name: str
    created_at: float
    revoked_at: float | None
