"""The tables, and a job as a row of one.

A change here needs a migration: a new file in ``migrations/versions``.
"""

import json
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from rayreel.config.request import RenderRequest
from rayreel.serving.jobs import Job, NewJob, Output


class PlainText(TypeDecorator[str]):
    """Text that every database takes; NUL and lone surrogates, which PostgreSQL refuses, go."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        """Replace what cannot be stored."""
        if value is None:
            return None
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class Json(TypeDecorator[Any]):
    """Plain values as JSON, one member a line: ``json_member`` finds one by its text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: sa.Dialect) -> str | None:  # noqa: ANN401
        """Write it."""
        return None if value is None else json.dumps(value, indent=0)

    def process_result_value(self, value: str | None, _dialect: sa.Dialect) -> Any:  # noqa: ANN401
        """Read it."""
        return None if value is None else json.loads(value)


def json_member(name: str, value: str) -> str:
    """The text that a ``Json`` object with this member holds, and no other does.

    Line breaks within texts are escaped, so that one is always the start of a member.
    """
    return f"\n{json.dumps(name)}: {json.dumps(value)}"


metadata = sa.MetaData()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("job_id", PlainText, primary_key=True),
    sa.Column("owner", PlainText, nullable=False),
    sa.Column("kind", PlainText, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("asked", Json, nullable=False),
    sa.Column("shape", PlainText, nullable=False),
    sa.Column("batch_key", PlainText, nullable=False),
    sa.Column("adapters", PlainText, nullable=False),
    sa.Column("cost_s", sa.Double, nullable=False),
    sa.Column("stage_s", Json, nullable=False),
    sa.Column("priority", PlainText, nullable=False),
    sa.Column("due", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("deadline_at", sa.Double),
    sa.Column("idempotency_key", PlainText),
    sa.Column("digest", PlainText, nullable=False),
    sa.Column("tags", Json, nullable=False),
    sa.Column("notes", Json, nullable=False),
    sa.Column("state", PlainText, nullable=False),
    sa.Column("stage", PlainText, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("alone", sa.Boolean, nullable=False),
    sa.Column("lease", PlainText, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("written", PlainText),
    sa.Column("seconds", Json, nullable=False),
    sa.Column("output", Json),
    sa.Column("error", PlainText, nullable=False),
    sa.Column("message", PlainText, nullable=False),
    # The prompt, casefolded: databases fold letters beyond ASCII each in its own way, or not.
    sa.Column("searched", PlainText, nullable=False),
    # What is being made, while the job runs.
    sa.Column("picture", sa.LargeBinary),
    sa.Column("preview", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("owner", "idempotency_key", name="uq_jobs_idempotency"),
    sa.Index("ix_jobs_queue", "state", "due", "job_id"),
    sa.Index("ix_jobs_owner", "owner", "created_at", "job_id"),
    sa.Index("ix_jobs_lease", "lease"),
    sa.Index("ix_jobs_expires", "expires_at"),
)

JOB = tuple(column for column in jobs.c if column.name not in {"searched", "picture"})
"""Columns that ``job_of`` reads."""

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", PlainText, primary_key=True),
    sa.Column("name", PlainText, nullable=False),
    # SHA-256 of the secret. It has 256 random bits, so that a slow hash would add nothing.
    sa.Column("digest", PlainText, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("revoked_at", sa.Double),
    sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
)


def row_of(new: NewJob) -> dict[str, Any]:
    """The row of a job that is accepted."""
    job = Job(**{field.name: getattr(new, field.name) for field in fields(NewJob)})
    values = {field.name: getattr(job, field.name) for field in fields(Job)}
    mappings = ("asked", "stage_s", "tags", "seconds")
    return {
        **values,
        **{name: dict(values[name]) for name in mappings},
        "request": job.request.model_dump_json(),
        "searched": job.request.prompt.casefold(),
    }


def job_of(row: sa.Row[Any]) -> Job:
    """The job of a row of ``JOB``."""
    values = dict(row._mapping)
    output = values["output"]
    return Job(
        **{
            **values,
            "request": RenderRequest.model_validate_json(values["request"]),
            "notes": tuple(values["notes"]),
            "output": None if output is None else Output(**output),
        }
    )


def output_row(output: Output) -> dict[str, Any]:
    """What ``jobs.output`` holds."""
    return asdict(output)
