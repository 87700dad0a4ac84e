"""What becomes of the jobs of a batch: of each one thing, written once the store answers."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from rayreel.serving.dispatch.failures import (
    Failure,
    failure_of,
    internal,
    may_go_otherwise,
    worker_lost,
)
from rayreel.serving.dispatch.journal import Journal
from rayreel.serving.dispatch.settings import DispatchSettings, Event, What
from rayreel.serving.jobs import Job, Output
from rayreel.serving.store import JobStore
from rayreel.stages.base import ItemFailure, RenderItem

log = logging.getLogger(__name__)


class Outcomes:
    """Jobs of a batch until something has become of them.

    Attributes:
        live: Items of the jobs that are at work, in order, as far as they have come.
        unwritten: Jobs whose end is not in the store yet.
        journal: Writes to the store.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        lease: str,
        store: JobStore,
        settings: DispatchSettings,
        told: Callable[[Event], None],
    ) -> None:
        """All of them are at work.

        Args:
            jobs: As they were taken.
            lease: That they were taken with.
            store: Written to.
            settings: Tries and retention.
            told: Of what became of each.
        """
        self.jobs = {job.job_id: job for job in jobs}
        self.live = {
            job.job_id: RenderItem(item_id=job.job_id, request=job.request, attempt=job.attempt)
            for job in jobs
        }
        self.unwritten = set(self.jobs)
        self.journal = Journal(store, lease)
        self._lease, self._store, self._settings, self._told = lease, store, settings, told

    def progressed(self, item: RenderItem) -> None:
        """A pool has done its part of a live item."""
        before = self.live[item.item_id]
        self.live[item.item_id] = item
        if (item.prompts, item.notes) != (before.prompts, before.notes):
            written = "\n\n".join(dict.fromkeys(item.prompts))
            self.journal.write(
                partial(self._store.wrote, self._lease, item.item_id, written, item.notes)
            )

    def done(self, job_id: str, output: Output) -> None:
        """The file of a job is in place."""
        event = self._left("done", job_id)
        if event is not None:
            self._end(
                event,
                lambda now, expires_at: self._store.finish(
                    self._lease,
                    job_id,
                    output,
                    seconds=event.seconds,
                    now=now,
                    expires_at=expires_at,
                ),
            )

    def fail(
        self, job_id: str, failure: Failure, seconds: Iterable[tuple[str, float]] = ()
    ) -> None:
        """A job is given up.

        Args:
            job_id: Nothing happens to one that is not live.
            failure: Why.
            seconds: Stages and the time that they took, beside those that were done.
        """
        event = self._left("failed", job_id, error=failure.error, seconds=seconds)
        if event is not None:
            self._end(
                event,
                lambda now, expires_at: self._store.fail(
                    self._lease,
                    job_id,
                    error=failure.error,
                    message=failure.message,
                    seconds=event.seconds,
                    now=now,
                    expires_at=expires_at,
                ),
            )

    def failed(self, failure: ItemFailure) -> None:
        """A stage could not do a live item: try it again, or give it up."""
        job = self.jobs[failure.item_id]
        log.warning(
            "%s: %s in %s, try %d: %s",
            job.job_id,
            failure.error,
            failure.stage,
            job.attempt,
            failure.message,
        )
        if may_go_otherwise(failure) and self._has_tries(job):
            self.release([job.job_id], error=failure.error)
        else:
            seconds = [(failure.stage, failure.seconds)]
            self.fail(job.job_id, failure_of(failure, job), seconds)

    def broken(self, job_ids: Collection[str]) -> None:
        """A fault of ours, which the log has, ends some jobs."""
        for job_id in job_ids:
            self.fail(job_id, internal(self.jobs[job_id]))

    def lost(
        self, job_ids: Collection[str], *, why: Callable[[Job], Failure] = worker_lost
    ) -> None:
        """The worker of some jobs is gone: try them again, each by itself, or give them up."""
        again = [job_id for job_id in job_ids if self._has_tries(self.jobs[job_id])]
        for job_id in set(job_ids).difference(again):
            self.fail(job_id, why(self.jobs[job_id]))
        self.release(again, alone=True, error="worker_lost")

    def cancel(self, job_id: str) -> None:
        """A job is stopped as asked."""
        event = self._left("cancelled", job_id)
        if event is not None:
            self._end(event, partial(self._store.cancelled, self._lease, job_id))

    def release(
        self,
        job_ids: Collection[str],
        *,
        alone: bool = False,
        spent: bool = True,
        error: str = "",
    ) -> None:
        """Put live jobs back into the queue.

        Args:
            job_ids: Nothing happens to those that are not live.
            alone: Whether they shall share no batch.
            spent: Whether this was a try.
            error: What went wrong.
        """
        left = [self._left("released", job_id, error=error) for job_id in job_ids]
        events = [event for event in left if event is not None]
        if not events:
            return
        ids = [event.job.job_id for event in events]

        def then(_: int) -> None:
            self.unwritten.difference_update(ids)
            for event in events:
                self._told(event)

        self.journal.write(
            partial(self._store.release, self._lease, ids, alone=alone, spent=spent), then
        )

    def drop(self, job_ids: Collection[str]) -> None:
        """Forget jobs that somebody else runs."""
        for job_id in job_ids:
            if self._left("released", job_id) is not None:
                log.warning("%s: its lease is lost, what it has come to is dropped", job_id)
                self.unwritten.discard(job_id)

    def _has_tries(self, job: Job) -> bool:
        return job.attempt < self._settings.queue.attempts

    def _left(
        self,
        what: What,
        job_id: str,
        *,
        error: str = "",
        seconds: Iterable[tuple[str, float]] = (),
    ) -> Event | None:
        """What becomes of a job, which is not live any more; ``None`` if it was not before."""
        item = self.live.pop(job_id, None)
        if item is None:
            return None
        self.journal.forget(job_id)
        total: dict[str, float] = {}
        for stage, taken in (*item.seconds, *seconds):
            total[stage] = total.get(stage, 0.0) + taken
        return Event(what=what, job=self.jobs[job_id], at=time.time(), seconds=total, error=error)

    def _end(self, event: Event, write: Callable[[float, float | None], bool]) -> None:
        """Have the end of a job written.

        Args:
            event: What has become of it.
            write: Does it, with the time and with when the job is to be removed.
        """
        job_id = event.job.job_id

        def call() -> bool:
            # By the time of the write, as the store may have been away for hours.
            now = time.time()
            return write(now, self._settings.expires_at(now))

        def then(ours: bool) -> None:
            self.unwritten.discard(job_id)
            if ours:
                self._told(event)
            else:
                log.warning("%s: not ours any more, and not %s by us", job_id, event.what)

        self.journal.write(call, then)
