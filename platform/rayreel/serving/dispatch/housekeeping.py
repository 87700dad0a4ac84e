"""Jobs that nobody runs any more, that are late, or whose time is over."""

import asyncio
import logging
import time
from collections.abc import Collection

from rayreel.errors import StorageError
from rayreel.serving.dispatch.leases import Watch
from rayreel.serving.dispatch.settings import DispatchSettings
from rayreel.serving.store import JobStore

_RETIRE_S = 30.0
_AT_ONCE = 100

log = logging.getLogger(__name__)


class Housekeeping:
    """What has to be looked at from time to time."""

    def __init__(self, store: JobStore, settings: DispatchSettings) -> None:
        """Nothing was looked at yet.

        Args:
            store: Of the jobs.
            settings: Patience, tries and retention.
        """
        self._store, self._settings = store, settings
        self._watch = Watch(settings.queue.stale_s)

    async def look(self, mine: Collection[str]) -> bool:
        """Take over stale jobs, and end those that wait past their deadline.

        Args:
            mine: Leases of jobs that run here; it may change meanwhile.

        Returns:
            Whether some jobs were taken over.

        Raises:
            StorageError: If the store does not answer.
        """
        try:
            return await self._look(mine)
        except StorageError:
            self._watch.forget()
            raise

    async def _look(self, mine: Collection[str]) -> bool:
        running = await asyncio.to_thread(self._store.running)
        taken = 0
        for job in self._watch.stale(running, mine, time.monotonic()):
            log.warning("%s: whoever ran it is gone, in try %d", job.job_id, job.attempt)
            taken += await asyncio.to_thread(
                self._store.take_over, job, attempts=self._settings.queue.attempts, now=time.time()
            )
        now = time.time()
        for job in await asyncio.to_thread(self._store.overdue, now):
            if job.state == "queued":
                await asyncio.to_thread(
                    self._store.expire_queued, job.job_id, now, self._settings.expires_at(now)
                )
        return taken > 0

    async def retire(self) -> float:
        """Remove finished jobs whose time is over, with their files.

        Returns:
            Seconds until this is to be done again.

        Raises:
            StorageError: If the store does not answer.
        """
        jobs = await asyncio.to_thread(self._store.expired, time.time(), _AT_ONCE)
        gone = 0
        for job in jobs:
            try:
                await asyncio.to_thread(self._settings.keep, job)
            except Exception:
                log.exception(
                    "%s: its files cannot be removed; it stays until they can", job.job_id
                )
                continue
            gone += await asyncio.to_thread(self._store.delete, job.job_id)
        return 0.1 if gone and len(jobs) == _AT_ONCE else _RETIRE_S
