"""What is known of a job, from when it is accepted until it is removed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rayreel.config.request import RenderRequest
from rayreel.config.serving import Priority

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["video", "image"]

FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is checked, and not yet accepted.

    Attributes:
        job_id: Its name, ``video_`` or ``image_`` and 32 hexadecimal digits; also the item id of
            its clip in the ledger of the service directory.
        owner: Id of the API key that it came with; empty without one.
        kind: What it was asked for as.
        request: The resolved request, with its seed.
        asked: What the client said, as JSON without the contents of files.
        shape: Name of its shape, which costs are known by.
        batch_key: What jobs must agree in to be denoised in one batch.
        adapters: Names its set of adapters; empty without any.
        cost_s: Seconds that all its stages take together, as far as that is known.
        priority: Its class.
        due: Its place in the queue: whoever has the smallest goes first.
        created_at: When it came, in seconds since 1970, as all times are.
        stage_s: What each stage takes, likewise.
        deadline_at: When it is of no use any more, if ever.
        idempotency_key: The client's; ``None`` without one.
        digest: Hash of what was asked, to tell a repeated key from one that is used twice.
        tags: The client's own.
        notes: What is otherwise than the client may expect.
    """

    job_id: str
    owner: str
    kind: Kind
    request: RenderRequest
    asked: Mapping[str, Any]
    shape: str
    batch_key: str
    adapters: str
    cost_s: float
    priority: Priority
    due: float
    created_at: float
    stage_s: Mapping[str, float] = field(default_factory=dict)
    deadline_at: float | None = None
    idempotency_key: str | None = None
    digest: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The file of a finished job, in the service directory.

    Attributes:
        path: Where it lies, from the service directory.
        sha256: Hash of the decoded frames, as of ``stages.base.Artifact``.
        num_bytes: Size of the file.
    """

    path: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(NewJob):
    """A job as it stands.

    Attributes:
        state: Where it is in its life.
        stage: Where it is at work, or was last.
        step: Denoising steps of the stage that are done.
        steps: All of them; 0 where the stage has none.
        attempt: Which try this is, from 1.
        alone: Whether it shares no batch, as it was there when a worker was lost.
        lease: Token of the dispatcher that runs it; empty where none does.
        beat: How often that one gave a sign of life.
        cancelling: Whether it is asked to stop.
        preview: Pictures of it that came while it runs; the last one is in the store.
        version: Grows with every change that a client can see.
        started_at: When its last try began.
        finished_at: When it was done, failed or was cancelled.
        expires_at: When it is removed with its files, if ever.
        written: The prompt that was written out from the client's.
        seconds: Time that each stage took.
        output: Its file, once it is done.
        error: Class of what went wrong, as clients see it, such as ``worker_lost``.
        message: What went wrong, in words.
    """

    state: State = "queued"
    stage: str = ""
    step: int = 0
    steps: int = 0
    attempt: int = 1
    alone: bool = False
    lease: str = ""
    beat: int = 0
    cancelling: bool = False
    preview: int = 0
    version: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    written: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    output: Output | None = None
    error: str = ""
    message: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job stands in the queue.

    Attributes:
        ahead: Jobs that go before it.
        ahead_s: What they cost together, in seconds.
    """

    ahead: int
    ahead_s: float
