"""Follows jobs in the database for all who want to know of them, with one question at a time."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

from rayreel.errors import StorageError
from rayreel.serving.jobs import Job, Place
from rayreel.serving.load import Load
from rayreel.serving.service import Service

log = logging.getLogger(__name__)

_EVERY_S = 0.2
# Between two looks while many begin to follow.
_LEAST_S = 0.02
_PLACES_EVERY_S = 1.0
_AFTER_ERROR_S = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as it was seen.

    Attributes:
        job: The job.
        place: Where it stands, if it is queued.
        load: Of the pools, if it is queued and that is known.
    """

    job: Job
    place: Place | None = None
    load: Load | None = None


@dataclass(eq=False, slots=True)
class _Follower:
    """One who wants to know of a job; of what happens while it is busy it sees the last."""

    seen: Seen | None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, seen: Seen | None) -> None:
        self.seen = seen
        self.news.set()


class Watcher:
    """Tells followers of changes of their jobs; for one event loop.

    It only looks while somebody follows, and all followers of one process together ask the
    database for what has changed about five times a second; whoever comes new is told at once.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._followers: dict[str, set[_Follower]] = {}
        self._seen: dict[str, Seen] = {}
        self._unplaced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def follow(self, job: Job) -> AsyncGenerator[Seen, None]:
        """A job as it is now, and after each change; ends when it is finished or gone.

        Args:
            job: As it was found in the store.
        """
        follower = self._add(job)
        try:
            while True:
                await follower.news.wait()
                follower.news.clear()
                if follower.seen is None:
                    return
                yield follower.seen
                if follower.seen.job.finished:
                    return
        finally:
            self._remove(job.job_id, follower)

    def _add(self, job: Job) -> _Follower:
        follower = _Follower(None)
        self._followers.setdefault(job.job_id, set()).add(follower)
        known = self._seen.get(job.job_id)
        if known is None or known.job.version < job.version:
            # A queued one is told with its place, which the next look finds.
            queued = job.state == "queued"
            self._tell(Seen(job), quietly=queued)
            if queued:
                self._unplaced.set()
        elif known.job.state != "queued" or known.place is not None:
            follower.tell(known)
        if self._task is None:
            self._task = asyncio.create_task(self._look_on())
        return follower

    def _remove(self, job_id: str, follower: _Follower) -> None:
        followers = self._followers[job_id]
        followers.discard(follower)
        if not followers:
            del self._followers[job_id]
            self._seen.pop(job_id, None)

    def _tell(self, seen: Seen, *, quietly: bool = False) -> None:
        self._seen[seen.job.job_id] = seen
        if not quietly:
            for follower in self._followers.get(seen.job.job_id, ()):
                follower.tell(seen)

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()
        places_at, failing = 0.0, False
        try:
            while self._followers:
                self._unplaced.clear()
                before = dict(self._seen)
                unplaced = any(
                    seen.job.state == "queued" and seen.place is None for seen in before.values()
                )
                with_places = unplaced or loop.time() >= places_at
                try:
                    found = await asyncio.to_thread(self._look, before, with_places)
                except Exception as error:  # noqa: BLE001 - nobody else would tell the followers
                    if not failing:
                        said = error if isinstance(error, StorageError) else type(error).__name__
                        log.warning("jobs cannot be followed for now: %s", said)
                    failing = True
                    await asyncio.sleep(_AFTER_ERROR_S)
                    continue
                failing = False
                if with_places:
                    places_at = loop.time() + _PLACES_EVERY_S
                self._spread(found, before)
                await asyncio.sleep(_LEAST_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY_S - _LEAST_S):
                        await self._unplaced.wait()
        finally:
            self._task = None

    def _spread(self, found: dict[str, Seen | None], before: dict[str, Seen]) -> None:
        for job_id, seen in found.items():
            known = self._seen.get(job_id)
            if known is None:
                continue
            if seen is None:
                for follower in self._followers.get(job_id, ()):
                    follower.tell(None)
            elif known is before[job_id] or known.job.version <= seen.job.version:
                self._tell(seen)

    def _look(self, before: dict[str, Seen], with_places: bool) -> dict[str, Seen | None]:
        """What is otherwise than before: jobs by name, ``None`` for one that is gone."""
        store = self._service.store
        versions = {job_id: seen.job.version for job_id, seen in before.items()}
        changed = store.changed(versions)
        now = {job_id: changed.get(job_id, seen.job) for job_id, seen in before.items()}
        found: dict[str, Seen | None] = {
            job_id: Seen(job) if job else None
            for job_id, job in changed.items()
            if job is None or job.state != "queued"
        }
        queued = [job for job in now.values() if job and job.state == "queued"]
        if queued and (with_places or any(job.job_id in changed for job in queued)):
            places = store.places([job.job_id for job in queued])
            load = self._service.load()
            # One without a place has just left the queue, as the next look finds.
            found |= {
                job.job_id: Seen(job, places[job.job_id], load)
                for job in queued
                if job.job_id in places
            }
        return found
