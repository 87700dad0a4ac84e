"""What all parts of the store share."""

from typing import Any

import sqlalchemy as sa

from rayreel.serving.jobs import Job, State
from rayreel.serving.store.database import Database
from rayreel.serving.store.tables import JOB, job_of, jobs


class Part:
    """Methods over one database."""

    _database: Database
    _retention_s: float | None

    def _expiry(self, now: float) -> float | None:
        return None if self._retention_s is None else now + self._retention_s


def is_job(job_id: str) -> sa.ColumnElement[bool]:
    """The job of a name."""
    return jobs.c.job_id == job_id


def found(connection: sa.Connection, job_id: str, *, lock: bool = False) -> Job | None:
    """One job; locked until the transaction ends, where it is a row that can be."""
    query = sa.select(*JOB).where(is_job(job_id))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else job_of(row)


def ended(
    state: State, *, now: float, expires_at: float | None, error: str = "", message: str = ""
) -> dict[str, Any]:
    """Columns of a job to which nothing more happens."""
    return {
        "state": state,
        "lease": "",
        "cancelling": False,
        "finished_at": now,
        "expires_at": expires_at,
        "error": error,
        "message": message,
        "version": jobs.c.version + 1,
        "picture": None,
        "preview": 0,
    }


def requeued(*, alone: bool, spent: bool) -> dict[str, Any]:
    """Columns of a job that waits again; its place in the queue is what it was."""
    values = {
        "state": "queued",
        "lease": "",
        "stage": "",
        "step": 0,
        "steps": 0,
        "version": jobs.c.version + 1,
        "picture": None,
        "preview": 0,
    }
    if alone:
        values["alone"] = True
    if spent:
        values["attempt"] = jobs.c.attempt + 1
    return values
