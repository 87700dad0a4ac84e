"""What a dispatcher does with jobs: take them, run them, end them.

Whatever it writes to a job that runs holds only while the job is leased to it, so that a dispatcher
that was away for long, and whose jobs another one has, changes nothing any more. Rows are locked in
the order of their ids before several are changed; otherwise two transactions could each wait for
the other.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from rayreel.serving.jobs import FINISHED, Job, Output
from rayreel.serving.store.base import Part, ended, found, is_job, requeued
from rayreel.serving.store.records import Beats, Totals
from rayreel.serving.store.tables import JOB, job_of, jobs, output_row

_ORDER = (jobs.c.due, jobs.c.job_id)


class Work(Part):
    """The store as a dispatcher sees it."""

    def queued(self, limit: int) -> list[Job]:
        """The first jobs of the queue, in order.

        Raises:
            StorageError: If the database does not answer.
        """
        return self._jobs(jobs.c.state == "queued", order=_ORDER, limit=limit)

    def totals(self) -> Totals:
        """How much waits and runs.

        Raises:
            StorageError: If the database does not answer.
        """
        query = (
            sa.select(
                jobs.c.state,
                sa.func.count().label("number"),
                sa.func.sum(jobs.c.cost_s).label("cost_s"),
                sa.func.min(jobs.c.created_at).label("oldest"),
            )
            .where(jobs.c.state.in_(("queued", "running")))
            .group_by(jobs.c.state)
        )
        with self._database.reading() as connection:
            rows = {row.state: row for row in connection.execute(query)}
        waits, runs = rows.get("queued"), rows.get("running")
        return Totals(
            queued=waits.number if waits else 0,
            queued_s=waits.cost_s if waits else 0.0,
            running=runs.number if runs else 0,
            running_s=runs.cost_s if runs else 0.0,
            oldest_created_at=waits.oldest if waits else None,
        )

    def take(self, job_ids: Sequence[str], lease: str, now: float) -> list[Job]:
        """Lease jobs that wait, and mark them as running.

        Args:
            job_ids: Which ones.
            lease: Token that proves that they are the caller's; not empty.
            now: When their try begins.

        Returns:
            Those that still waited, in the order of the queue; the caller has these alone.

        Raises:
            StorageError: If the database does not answer; the jobs may be leased or not. Those
                that are show as ``running`` under the lease and have no beats, so that they are
                found as those of a lost dispatcher are.
        """
        if not lease:
            raise ValueError("an empty lease is none; expected a token")
        waiting = (
            sa.select(jobs.c.job_id)
            .where(jobs.c.state == "queued", jobs.c.job_id.in_(job_ids))
            .order_by(jobs.c.job_id)
            .with_for_update(skip_locked=True)
        )
        with self._database.writing() as connection:
            mine = connection.execute(waiting).scalars().all()
            values = {
                "state": "running",
                "lease": lease,
                # Never the same twice under one lease, so that a beat says which try it is of.
                "beat": jobs.c.beat + 1,
                "started_at": now,
                "version": jobs.c.version + 1,
            }
            connection.execute(sa.update(jobs).where(jobs.c.job_id.in_(mine)).values(values))
            taken = sa.select(*JOB).where(jobs.c.job_id.in_(mine)).order_by(*_ORDER)
            return [job_of(row) for row in connection.execute(taken)]

    def beat(self, lease: str, job_ids: Collection[str]) -> Beats:
        """Give a sign of life for running jobs.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.writing() as connection:
            held = _held(connection, lease, job_ids)
            _update(connection, held, {"beat": jobs.c.beat + 1})
        return Beats(
            lost=frozenset(job_ids) - held.keys(),
            cancelling=frozenset(name for name, cancelling in held.items() if cancelling),
        )

    def progress(
        self,
        lease: str,
        job_ids: Collection[str],
        *,
        stage: str,
        step: int,
        steps: int,
        pictures: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Say how far jobs have come.

        Args:
            lease: Of the dispatcher that runs them.
            job_ids: Which ones.
            stage: Where they are at work.
            step: Denoising steps of it that are done.
            steps: All of them.
            pictures: Of some of these jobs as they are being made; others keep what they have.

        Raises:
            StorageError: If the database does not answer.
        """
        came = {"stage": stage, "step": step, "steps": steps}
        other = [jobs.c[name] != value for name, value in came.items()]
        other.append(jobs.c.job_id.in_(pictures))
        with self._database.writing() as connection:
            held = _held(connection, lease, job_ids, sa.or_(*other))
            _update(connection, held, {**came, "version": jobs.c.version + 1})
            for job_id in held.keys() & pictures.keys():
                shown = {"picture": pictures[job_id], "preview": jobs.c.preview + 1}
                _update(connection, [job_id], shown)

    def wrote(self, lease: str, job_id: str, prompt: str, notes: tuple[str, ...]) -> None:
        """Keep the prompt that was written out, and add notes that the job does not have yet.

        Args:
            lease: Of the dispatcher that runs it.
            job_id: The job.
            prompt: Empty where there are notes alone.
            notes: What is otherwise than the client may expect.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.writing() as connection:
            job = found(connection, job_id, lock=True)
            if job is None or job.state != "running" or job.lease != lease:
                return
            values = {
                "written": prompt or job.written,
                "notes": list(dict.fromkeys((*job.notes, *notes))),
                "version": jobs.c.version + 1,
            }
            connection.execute(sa.update(jobs).where(is_job(job_id)).values(values))

    def finish(
        self,
        lease: str,
        job_id: str,
        output: Output,
        *,
        seconds: Mapping[str, float],
        now: float,
        expires_at: float | None,
    ) -> bool:
        """Mark a running job as done.

        Returns:
            Whether it is; ``False`` if it is not leased to the caller.

        Raises:
            StorageError: If the database does not answer.
        """
        values = {"output": output_row(output), "seconds": dict(seconds)}
        return self._end(lease, job_id, {**values, **ended("done", now=now, expires_at=expires_at)})

    def fail(
        self,
        lease: str,
        job_id: str,
        *,
        error: str,
        message: str,
        seconds: Mapping[str, float],
        now: float,
        expires_at: float | None,
    ) -> bool:
        """Mark a running job as failed.

        Returns:
            Whether it is; ``False`` if it is not leased to the caller.

        Raises:
            StorageError: If the database does not answer.
        """
        end = ended("failed", now=now, expires_at=expires_at, error=error, message=message)
        return self._end(lease, job_id, {"seconds": dict(seconds), **end})

    def cancelled(self, lease: str, job_id: str, now: float, expires_at: float | None) -> bool:
        """Mark a running job as cancelled.

        Returns:
            Whether it is; ``False`` if it is not leased to the caller.

        Raises:
            StorageError: If the database does not answer.
        """
        return self._end(lease, job_id, ended("cancelled", now=now, expires_at=expires_at))

    def release(
        self, lease: str, job_ids: Collection[str], *, alone: bool = False, spent: bool = True
    ) -> int:
        """Put running jobs back in the queue, at their old places.

        Those that are asked to stop are cancelled instead.

        Args:
            lease: The caller's.
            job_ids: Which ones; those that are not leased to the caller stay as they are.
            alone: Whether they share no batch from now on.
            spent: Whether the try counts.

        Returns:
            How many are in the queue again.

        Raises:
            StorageError: If the database does not answer.
        """
        now = time.time()
        with self._database.writing() as connection:
            held = _held(connection, lease, job_ids)
            stop = [name for name, cancelling in held.items() if cancelling]
            back = [name for name, cancelling in held.items() if not cancelling]
            end = ended("cancelled", now=now, expires_at=self._expiry(now))
            _update(connection, stop, end)
            _update(connection, back, requeued(alone=alone, spent=spent))
        return len(back)

    def running(self) -> list[Job]:
        """All jobs that run, of whatever dispatcher, oldest try first.

        Raises:
            StorageError: If the database does not answer.
        """
        return self._jobs(jobs.c.state == "running", order=(jobs.c.started_at, jobs.c.job_id))

    def take_over(self, job: Job, *, attempts: int, now: float) -> bool:
        """Take a job from a dispatcher that gives no sign of life.

        It goes back to the queue and shares no batch from now on; it is cancelled if it is asked to
        stop, and failed as ``worker_lost`` if this was its last try.

        Args:
            job: As it was seen for too long.
            attempts: Tries of a job.
            now: When it is failed.

        Returns:
            Whether it was taken; ``False`` if there was a sign of life, or the job is another's.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.writing() as connection:
            seen = found(connection, job.job_id, lock=True)
            if seen is None or seen.state != "running":
                return False
            if (seen.lease, seen.beat) != (job.lease, job.beat):
                return False
            if seen.cancelling:
                values = ended("cancelled", now=now, expires_at=self._expiry(now))
            elif seen.attempt < attempts:
                values = requeued(alone=True, spent=True)
            else:
                values = ended(
                    "failed",
                    now=now,
                    expires_at=self._expiry(now),
                    error="worker_lost",
                    message=f"what ran it was lost in each of {seen.attempt} tries",
                )
            _update(connection, [job.job_id], values)
        return True

    def overdue(self, now: float) -> list[Job]:
        """Jobs that wait or run past their deadline, most overdue first.

        Raises:
            StorageError: If the database does not answer.
        """
        open_ = jobs.c.state.in_(("queued", "running"))
        return self._jobs(open_, jobs.c.deadline_at < now, order=(jobs.c.deadline_at,))

    def expire_queued(self, job_id: str, now: float, expires_at: float | None) -> bool:
        """Fail a job that waits past its deadline.

        Returns:
            Whether it is failed; ``False`` if it does not wait, or not past a deadline.

        Raises:
            StorageError: If the database does not answer.
        """
        late = (is_job(job_id), jobs.c.state == "queued", jobs.c.deadline_at < now)
        end = ended(
            "failed",
            now=now,
            expires_at=expires_at,
            error="deadline_exceeded",
            message="its deadline passed before it could start",
        )
        with self._database.writing() as connection:
            return connection.execute(sa.update(jobs).where(*late).values(end)).rowcount == 1

    def expired(self, now: float, limit: int = 100) -> list[Job]:
        """Finished jobs that are to be removed, those first that are so for longest.

        Raises:
            StorageError: If the database does not answer.
        """
        over = (jobs.c.state.in_(FINISHED), jobs.c.expires_at < now)
        return self._jobs(*over, order=(jobs.c.expires_at,), limit=limit)

    def _jobs(
        self,
        *where: sa.ColumnElement[bool],
        order: Sequence[sa.ColumnElement[Any]],
        limit: int | None = None,
    ) -> list[Job]:
        query = sa.select(*JOB).where(*where).order_by(*order).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [job_of(row) for row in rows]

    def _end(self, lease: str, job_id: str, values: Mapping[str, Any]) -> bool:
        mine = (is_job(job_id), jobs.c.lease == lease, jobs.c.state == "running")
        with self._database.writing() as connection:
            return connection.execute(sa.update(jobs).where(*mine).values(values)).rowcount == 1


def _held(
    connection: sa.Connection,
    lease: str,
    job_ids: Collection[str],
    *where: sa.ColumnElement[bool],
) -> dict[str, bool]:
    """Lock those of some jobs that run under a lease: whether each is asked to stop."""
    query = (
        sa.select(jobs.c.job_id, jobs.c.cancelling)
        .where(jobs.c.lease == lease, jobs.c.state == "running", jobs.c.job_id.in_(job_ids))
        .where(*where)
        .order_by(jobs.c.job_id)
        .with_for_update()
    )
    return {row.job_id: row.cancelling for row in connection.execute(query)}


def _update(connection: sa.Connection, job_ids: Collection[str], values: Mapping[str, Any]) -> None:
    if job_ids:
        connection.execute(sa.update(jobs).where(jobs.c.job_id.in_(job_ids)).values(values))
