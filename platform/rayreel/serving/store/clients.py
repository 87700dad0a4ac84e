"""What clients do with jobs: hand them in, look at them, cancel and remove them."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from rayreel.serving.jobs import FINISHED, Job, Kind, NewJob, Place, State
from rayreel.serving.store.base import Part, ended, found, is_job
from rayreel.serving.store.database import SUBMIT_LOCK
from rayreel.serving.store.records import JobPage, KeyReused, QueueFull
from rayreel.serving.store.tables import JOB, job_of, jobs, json_member, row_of

# Databases limit the values of one statement.
_CHUNK: Final = 500


class Clients(Part):
    """The store as clients see it."""

    def submit(self, job: NewJob, *, max_jobs: int, max_jobs_per_owner: int) -> tuple[Job, bool]:
        """Put a job in the queue.

        Args:
            job: With an idempotency key, an earlier job of its owner with the same key is
                returned instead.
            max_jobs: Jobs that may wait; an earlier job is returned even if as many do.
            max_jobs_per_owner: Of them, of the owner of this one.

        Returns:
            The job, and whether it is new.

        Raises:
            KeyReused: If the key came before with another digest.
            QueueFull: If as many jobs wait as may.
            StorageError: If the database does not answer; the job may be in the queue or not.
        """
        with self._database.writing(SUBMIT_LOCK) as connection:
            if job.idempotency_key is not None:
                same = sa.select(*JOB).where(
                    jobs.c.owner == job.owner, jobs.c.idempotency_key == job.idempotency_key
                )
                if row := connection.execute(same).one_or_none():
                    earlier = job_of(row)
                    if earlier.digest != job.digest:
                        raise KeyReused(job.idempotency_key, earlier.job_id)
                    return earlier, False
            count = sa.select(sa.func.count()).where(jobs.c.state == "queued")
            queued = connection.execute(count).scalar_one()
            if queued >= max_jobs:
                raise QueueFull(max_jobs, queued, False)
            own = connection.execute(count.where(jobs.c.owner == job.owner)).scalar_one()
            if own >= max_jobs_per_owner:
                raise QueueFull(max_jobs_per_owner, own, True)
            connection.execute(sa.insert(jobs).values(row_of(job)))
            accepted = found(connection, job.job_id)
            assert accepted is not None, "inserted above"
        return accepted, True

    def get(self, job_id: str) -> Job | None:
        """A job, or ``None`` if there is none of this name.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.reading() as connection:
            return found(connection, job_id)

    def picture(self, job_id: str) -> bytes | None:
        """What a running job looks like so far, as WebP; ``None`` if that is not known.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.reading() as connection:
            query = sa.select(jobs.c.picture).where(is_job(job_id))
            return connection.execute(query).scalar_one_or_none()

    def list(
        self,
        *,
        owner: str,
        limit: int,
        after: str | None,
        ascending: bool,
        states: Collection[State] = (),
        kind: Kind | None = None,
        tags: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> JobPage:
        """Jobs of one owner by the time when they came.

        Args:
            owner: Whose.
            limit: Jobs of a page, at least 1.
            after: Last job of the page before.
            ascending: Whether the oldest are first; the newest otherwise.
            states: If any, only jobs in one of them.
            kind: If given, only jobs of it.
            tags: Only jobs that have all of these.
            text: If given, only jobs whose prompt contains it, in any case.

        Raises:
            ValueError: If ``limit`` is less than 1, or the owner has no job ``after``.
            StorageError: If the database does not answer.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}; expected at least 1")
        wanted = [jobs.c.owner == owner]
        if states:
            wanted.append(jobs.c.state.in_(states))
        if kind is not None:
            wanted.append(jobs.c.kind == kind)
        for member in (json_member(*tag) for tag in (tags or {}).items()):
            # Of what all databases have, only this minds the case.
            wanted.append(sa.func.replace(jobs.c.tags, member, "") != jobs.c.tags)
        if text is not None:
            wanted.append(jobs.c.searched.contains(text.casefold(), autoescape=True))
        with self._database.reading() as connection:
            columns = (jobs.c.created_at, jobs.c.job_id)
            if after is not None:
                last = connection.execute(
                    sa.select(*columns).where(is_job(after), jobs.c.owner == owner)
                ).one_or_none()
                if last is None:
                    raise ValueError(f"after={after!r} is none of these jobs; expected one's id")
                here, there = sa.tuple_(*columns), sa.tuple_(*last)
                wanted.append(here > there if ascending else here < there)
            order = columns if ascending else [column.desc() for column in columns]
            query = sa.select(*JOB).where(*wanted).order_by(*order).limit(limit + 1)
            rows = connection.execute(query).all()
        return JobPage(jobs=tuple(map(job_of, rows[:limit])), more=len(rows) > limit)

    def changed(self, versions: Mapping[str, int]) -> dict[str, Job | None]:
        """Those of some jobs that changed.

        Args:
            versions: Of each job by its id, as last seen.

        Returns:
            The jobs that have another version now; ``None`` for those that are gone.

        Raises:
            StorageError: If the database does not answer.
        """
        changes: dict[str, Job | None] = {}
        with self._database.reading() as connection:
            for chunk in _chunks(versions):
                among = jobs.c.job_id.in_(chunk)
                rows = connection.execute(sa.select(jobs.c.job_id, jobs.c.version).where(among))
                now = {row.job_id: row.version for row in rows}
                other = [name for name in chunk if now.get(name) != versions[name]]
                changes |= dict.fromkeys(other)
                for row in connection.execute(sa.select(*JOB).where(jobs.c.job_id.in_(other))):
                    changes[row.job_id] = job_of(row)
        return changes

    def place(self, job: Job) -> Place:
        """Where a queued job stands in the queue.

        Raises:
            StorageError: If the database does not answer.
        """
        before = sa.tuple_(jobs.c.due, jobs.c.job_id) < sa.tuple_(job.due, job.job_id)
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(jobs.c.cost_s), 0.0)).where(
            jobs.c.state == "queued", before
        )
        with self._database.reading() as connection:
            ahead, ahead_s = connection.execute(query).one()
        return Place(ahead=ahead, ahead_s=ahead_s)

    def places(self, job_ids: Collection[str]) -> dict[str, Place]:
        """Where some jobs stand in the queue, by their ids; those that do not wait are left out.

        Raises:
            StorageError: If the database does not answer.
        """
        order = (jobs.c.due, jobs.c.job_id)
        cost_s = sa.func.sum(jobs.c.cost_s).over(order_by=order, rows=(None, -1))
        queue = (
            sa.select(
                jobs.c.job_id,
                (sa.func.row_number().over(order_by=order) - 1).label("ahead"),
                sa.func.coalesce(cost_s, 0.0).label("ahead_s"),
            )
            .where(jobs.c.state == "queued")
            .subquery()
        )
        places: dict[str, Place] = {}
        with self._database.reading() as connection:
            for chunk in _chunks(job_ids):
                query = sa.select(queue).where(queue.c.job_id.in_(chunk))
                for row in connection.execute(query):
                    places[row.job_id] = Place(ahead=row.ahead, ahead_s=row.ahead_s)
        return places

    def ask_cancel(self, job_id: str) -> Job | None:
        """Cancel a job that waits, and mark one that runs for its dispatcher to stop.

        Returns:
            The job as it is then; a finished one as it was; ``None`` if there is none.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.writing() as connection:
            job = found(connection, job_id, lock=True)
            if job is None or job.finished or job.cancelling:
                return job
            now = time.time()
            values = (
                ended("cancelled", now=now, expires_at=self._expiry(now))
                if job.state == "queued"
                else {"cancelling": True, "version": jobs.c.version + 1}
            )
            connection.execute(sa.update(jobs).where(is_job(job_id)).values(values))
            return found(connection, job_id)

    def delete(self, job_id: str) -> bool:
        """Remove a finished job; its files are the caller's to remove.

        Returns:
            Whether it is removed; ``False`` for one that waits or runs, or that is not there.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._database.writing() as connection:
            gone = sa.delete(jobs).where(is_job(job_id), jobs.c.state.in_(FINISHED))
            return connection.execute(gone).rowcount == 1


def _chunks(names: Collection[str]) -> Iterator[Sequence[str]]:
    listed = tuple(names)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]
