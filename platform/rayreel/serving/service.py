"""What the HTTP API is made of."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rayreel.config.serving import ServeSpec
from rayreel.data.storage import Storage
from rayreel.serving.gate import Auth, FileGate
from rayreel.serving.jobs import Job
from rayreel.serving.load import Load
from rayreel.serving.planning import Planner
from rayreel.serving.store import JobStore


def _ignore(_: object) -> None:
    """Hear of nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The parts of one service that its HTTP API calls.

    Attributes:
        spec: What it was asked to be; its output is absolute.
        store: Its jobs.
        planner: Checks requests.
        storage: The service directory.
        files: Lets in the files of requests.
        auth: Tells whose a request is.
        load: How busy the pools are, as was told last; may take a second.
        wake: Tells the dispatcher that there is work. It finds out by itself, later.
        cancel: Tells it to stop a job that is asked to in the store; likewise.
        accepted: Hears of each new job.
        cancelled: Hears of each job that was cancelled in the queue, where no dispatcher had it;
            perhaps twice.
        refused: Hears the code of each answer that says to come back later.
        turn: Held by whoever puts a job into the queue.
    """

    spec: ServeSpec
    store: JobStore
    planner: Planner
    storage: Storage
    files: FileGate
    auth: Auth
    load: Callable[[], Load | None]
    wake: Callable[[], Awaitable[None]]
    cancel: Callable[[str], Awaitable[None]]
    accepted: Callable[[Job], None] = _ignore
    cancelled: Callable[[Job], None] = _ignore
    refused: Callable[[str], None] = _ignore
    turn: threading.Lock = field(default_factory=threading.Lock)
