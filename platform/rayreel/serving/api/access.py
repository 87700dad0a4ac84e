"""Jobs by their names, for those who may see them."""

from fastapi import Request

from rayreel.serving.api.errors import ApiError
from rayreel.serving.api.submission import JOB_ID
from rayreel.serving.gate import caller_of
from rayreel.serving.jobs import Job
from rayreel.serving.service import Service


def owner_of(request: Request) -> str:
    """Id of the key that a request came with; empty without keys."""
    owner = caller_of(request).owner
    assert owner is not None, "the guard lets signed addresses to what belongs to one job only"
    return owner


def job_of(service: Service, request: Request, job_id: str) -> Job:
    """A job that the caller may see.

    Raises:
        ApiError: If there is none, or it is another's.
        StorageError: If the database does not answer.
    """
    job = service.store.get(job_id) if JOB_ID.fullmatch(job_id) else None
    if job is None or not service.auth.allows(caller_of(request), job):
        raise ApiError(
            404, f"no job {job_id[:100]!r}; expected the id of one", code="not_found", param="id"
        )
    return job
