"""Takes jobs from the queue, sends them through the pools, and sees that each comes to an end."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from rayreel.errors import StorageError
from rayreel.serving.dispatch.batch import Batch
from rayreel.serving.dispatch.estimates import Estimates
from rayreel.serving.dispatch.gates import Gate, Place
from rayreel.serving.dispatch.housekeeping import Housekeeping
from rayreel.serving.dispatch.order import next_batch
from rayreel.serving.dispatch.outcomes import Outcomes
from rayreel.serving.dispatch.patience import pauses
from rayreel.serving.dispatch.settings import DispatchSettings, Event, ignore
from rayreel.serving.jobs import Job
from rayreel.serving.load import Load
from rayreel.serving.pools import Pool
from rayreel.serving.store import JobStore

# Jobs are looked at so far ahead for those that share a batch, and for what waits.
_AHEAD = 200
# Jobs may come without a call, as from another process.
_POLL_S = 1.0
_LEAST_BEAT_S = 0.1
_ESTIMATE_S = 1.0
# For the end of what is still at work when its time is over.
_LAST_WORDS_S = 10.0

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs the jobs of a store; several may share one. All its methods are called in one loop."""

    def __init__(
        self,
        store: JobStore,
        pools: Sequence[Pool],
        settings: DispatchSettings,
        *,
        told: Callable[[Event], None] = ignore,
    ) -> None:
        """Nothing runs yet.

        Args:
            store: Of the jobs; its calls are made in threads.
            pools: What each job goes through, in order.
            settings: How.
            told: Of everything that becomes of a job, once it is in the store.
        """
        self._store, self._settings, self._told = store, settings, told
        self._estimates = Estimates(pools)
        self._house = Housekeeping(store, settings)
        self._beat_s = min(2.0, settings.queue.stale_s / 5)
        self._batches: dict[str, Batch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._taking: set[str] = set()
        self._to_cancel: set[str] = set()
        self._new_work, self._new_flags = asyncio.Event(), asyncio.Event()
        # The queue is what waits in front of the first pool.
        freed = (self._new_work.set, *[_nothing] * (len(pools) - 1))
        self._gates = [Gate(*one) for one in zip(pools, freed, strict=True)]
        self._stopping, self._over, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Run jobs until it is stopped, whatever becomes of the store meanwhile; once only."""
        async with self._group as group:
            group.create_task(self._again(self._admit, self._new_work))
            beats = self._again(
                self._beat, self._new_flags, least_s=_LEAST_BEAT_S, most_s=self._beat_s
            )
            group.create_task(beats)
            group.create_task(self._again(self._estimate))
            group.create_task(self._again(self._house.retire))

    def wake(self) -> None:
        """Look now: there is new work, or a job is to be cancelled."""
        self._new_work.set()
        self._new_flags.set()

    def cancel(self, job_id: str) -> None:
        """Stop a job, if it runs here; the store has been told already."""
        for batch in self._batches.values():
            if job_id in batch.outcomes.live:
                batch.cancel(job_id)
                return
        if job_id in self._taking:
            self._to_cancel.add(job_id)
        self.wake()

    async def stop(self, grace_s: float, *, pools_end: bool = False) -> None:
        """Take nothing more, and end ``run`` once nothing is at work.

        Args:
            grace_s: After so long, what is still at work goes back into the queue.
            pools_end: Whether the pools finish what they are at and take nothing more: what would
                have to go on in another one goes back into the queue as well.
        """
        self._stopping.set()
        self.wake()
        if pools_end:
            for batch in self._batches.values():
                batch.go_no_further()
        if not await self._is_idle(grace_s):
            for batch in self._batches.values():
                batch.outcomes.release([*batch.outcomes.live], spent=False)
                batch.close(lambda: None)
            if not await self._is_idle(_LAST_WORDS_S):
                log.error("stopping with %d batches that do not end", len(self._batches))
        for batch in self._batches.values():
            self._tasks[batch.lease].cancel()
        self._over.set()
        self.wake()

    def load(self) -> Load:
        """How busy the pools are."""
        standings = [one for batch in self._batches.values() for one in batch.standings]
        return self._estimates.load(standings)

    async def _is_idle(self, most_s: float) -> bool:
        """Wait until nothing is at work; whether that is so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._batches or self._taking:
                    self._idle.clear()
                    await self._idle.wait()
        return not self._batches

    async def _again(
        self,
        turn: Callable[[], Awaitable[float]],
        bell: asyncio.Event | None = None,
        *,
        least_s: float = 0.0,
        most_s: float = float("inf"),
    ) -> None:
        """Take turns until all is over; one that fails is logged, and others follow.

        Args:
            turn: Returns seconds until the next one.
            bell: Brings that forward when it rings.
            least_s: But not by more than this leaves.
            most_s: Between two turns while the store does not answer.
        """
        waits = pauses()
        while not self._over.is_set():
            if bell is not None:
                bell.clear()
            try:
                wait_s = await turn()
                waits = pauses()
            except StorageError as error:
                wait_s = min(next(waits), most_s)
                log.warning("the store does not answer, trying again in %.1f s: %s", wait_s, error)
                await self._rang(self._over, wait_s)
            except Exception:
                wait_s = next(waits)
                log.exception("a fault of the dispatcher, which goes on in %.1f s", wait_s)
                await self._rang(self._over, wait_s)
            else:
                await self._rang(self._over, min(least_s, wait_s))
                await self._rang(bell or self._over, wait_s - least_s)

    async def _rang(self, bell: asyncio.Event, most_s: float) -> None:
        if most_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await bell.wait()

    async def _admit(self) -> float:
        """Take batches while there is room for them."""
        room = self._gates[0].inside
        # Pools may have grown, which nobody tells.
        for gate in self._gates:
            gate.inside.look()
        while room.free and not self._stopping.is_set():
            now = time.time()
            queued = await asyncio.to_thread(self._store.queued, _AHEAD)
            choice = next_batch(
                [job for job in queued if job.deadline_at is None or job.deadline_at >= now],
                batch_size=self._settings.batch_size,
                now=now,
                batch_wait_s=self._settings.queue.batch_wait_s,
                free=room.free,
            )
            if not choice.batch:
                return min(_POLL_S, _POLL_S if choice.wait_s is None else choice.wait_s)
            if not await self._take(choice.batch, room.take()):
                # Somebody else has them, and the queue will tell.
                return _LEAST_BEAT_S
        return _POLL_S

    async def _take(self, batch: Sequence[Job], place: Place) -> bool:
        lease = uuid.uuid4().hex
        self._taking = {job.job_id for job in batch}
        try:
            taken = await asyncio.to_thread(
                self._store.take, [job.job_id for job in batch], lease, time.time()
            )
            if taken:
                self._begin(taken, lease, place)
        except BaseException:
            place.leave()
            raise
        finally:
            self._taking, self._to_cancel = set(), set()
            self._idle.set()
        if not taken:
            place.leave()
        return bool(taken)

    def _begin(self, jobs: Sequence[Job], lease: str, place: Place) -> None:
        outcomes = Outcomes(jobs, lease, self._store, self._settings, self._tell)
        batch = self._batches[lease] = Batch(outcomes, lease, self._gates, place, self._settings)
        self._tasks[lease] = self._group.create_task(self._run(batch))
        for job in jobs:
            self._tell(Event(what="taken", job=job, at=time.time()))
            if job.cancelling or job.job_id in self._to_cancel:
                batch.cancel(job.job_id)

    async def _run(self, batch: Batch) -> None:
        try:
            await batch.run()
        except Exception:
            # Its jobs give no sign any more, and are taken over.
            log.exception("a fault of the dispatcher ended a batch")
        finally:
            del self._batches[batch.lease], self._tasks[batch.lease]
            self._idle.set()
            self.wake()

    def _tell(self, event: Event) -> None:
        if event.what == "released":
            self.wake()
        try:
            self._told(event)
        except Exception:
            log.exception("whoever is told that %s is %s failed", event.job.job_id, event.what)

    async def _beat(self) -> float:
        """Give signs of life, and see to what is late, silent or left behind by others."""
        for batch in [*self._batches.values()]:
            batch.look(time.time())
        for batch in [*self._batches.values()]:
            if batch.outcomes.unwritten:
                beats = await asyncio.to_thread(
                    self._store.beat, batch.lease, [*batch.outcomes.unwritten]
                )
                batch.drop(beats.lost)
                for job_id in beats.cancelling:
                    batch.cancel(job_id)
        if await self._house.look(self._batches):
            self._new_work.set()
        return self._beat_s

    async def _estimate(self) -> float:
        first = await asyncio.to_thread(self._store.queued, _AHEAD)
        self._estimates.saw(first, await asyncio.to_thread(self._store.totals))
        self.load()
        return _ESTIMATE_S


def _nothing() -> None:
    """Whoever leaves another pool makes no room in the first."""
