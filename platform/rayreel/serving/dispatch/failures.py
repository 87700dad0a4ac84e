"""What clients are told of a job that failed: a code that stays the same, and words without paths.

======================= ===========================================================
``invalid_media``       a file of the request cannot be read
``invalid_request``     the request cannot be met, for a reason that its words give
``out_of_memory``       the clip does not fit into memory, whatever was tried
``unavailable``         something that the work needs did not answer
``worker_lost``         its workers were lost, or stood still, as often as it was tried
``deadline_exceeded``   it was not done when the client wanted it
``internal``            a fault of the service, which its log tells of
======================= ===========================================================
"""

import re
from dataclasses import dataclass
from typing import Literal

from rayreel.serving.jobs import Job
from rayreel.stages.base import ItemFailure
from rayreel.stages.groups import is_out_of_memory

ErrorCode = Literal[
    "invalid_media",
    "invalid_request",
    "out_of_memory",
    "unavailable",
    "worker_lost",
    "deadline_exceeded",
    "internal",
]

# Errors whose messages are written for the person who made the request.
_TOLD: dict[str, ErrorCode] = {
    "MediaError": "invalid_media",
    "ItemError": "invalid_request",
    "SpecError": "invalid_request",
}
_UNAVAILABLE = ("RetryableError", "StorageError")
_MOST_CHARACTERS = 500
# A path or URI: quoted with all its blanks, or up to the next one.
_PATH = re.compile(
    r"""(?P<quote>['"])(?:[a-z][a-z0-9+.-]*:/)?/(?P<quoted>[^'"]*)(?P=quote)"""
    r"""|(?<![\w./])(?:(?:[a-z][a-z0-9+.-]*:/)?/|uploads/)(?P<bare>[^\s'"]+)""",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job failed, as its client reads it."""

    error: ErrorCode
    message: str


def failure_of(failure: ItemFailure, job: Job) -> Failure:
    """Why a job failed, from what a stage says; the log has the rest."""
    if failure.error in _TOLD:
        return Failure(error=_TOLD[failure.error], message=without_paths(failure.message))
    if failure.error in {"OutOfMemoryError", "MemoryError"} or is_out_of_memory(
        RuntimeError(failure.message)
    ):
        return Failure(
            error="out_of_memory",
            message=f"{_size(job)} needs more memory than there is; ask for a smaller or a "
            "shorter one",
        )
    if failure.error in _UNAVAILABLE:
        return unavailable(job)
    if failure.error == "Cancelled":
        return worker_lost(job)
    return internal(job)


def may_go_otherwise(failure: ItemFailure) -> bool:
    """Whether another try of a job makes sense."""
    # Nobody here asked a job to stop whose failure is still of interest: its actor was shut down.
    return failure.retryable or failure.error == "Cancelled"


def worker_lost(job: Job) -> Failure:
    """The last worker of a job was lost."""
    return Failure(
        error="worker_lost",
        message=f"the worker that had the job was lost, in try {job.attempt} as in those before; "
        "the same request may succeed later",
    )


def unavailable(job: Job) -> Failure:
    """Something that a job needs did not answer."""
    return Failure(
        error="unavailable",
        message=f"something that the job needs did not answer, {job.attempt} times; the same "
        "request may succeed later",
    )


def deadline_exceeded() -> Failure:
    """A job was still at work at its deadline."""
    return Failure(
        error="deadline_exceeded", message="the job was not done at its deadline, and was stopped"
    )


def internal(job: Job) -> Failure:
    """A fault of ours."""
    return Failure(
        error="internal",
        message=f"the job failed because of an error in the service; its log tells more about "
        f"{job.job_id}",
    )


def without_paths(message: str) -> str:
    """A message with only the last part of the paths and URIs in it, on one line."""
    short = _PATH.sub(_last_part, message)
    return " ".join(short.split())[:_MOST_CHARACTERS]


def _last_part(path: re.Match[str]) -> str:
    quote, quoted, bare = path.group("quote", "quoted", "bare")
    if quote:
        return f"{quote}{quoted.rstrip('/').rpartition('/')[2]}{quote}"
    return str(bare).rstrip("/").rpartition("/")[2]


def _size(job: Job) -> str:
    request = job.request
    if job.kind == "image":
        return f"a picture of {request.width}x{request.height}"
    return f"a clip of {request.num_frames} frames of {request.width}x{request.height}"
