"""One batch on its way through the pools, and all that may happen to it there."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rayreel.errors import StorageError
from rayreel.serving.dispatch.failures import deadline_exceeded, unavailable, worker_lost
from rayreel.serving.dispatch.gates import Gate, Place, Rank, Room
from rayreel.serving.dispatch.outcomes import Outcomes
from rayreel.serving.dispatch.settings import DispatchSettings
from rayreel.serving.jobs import Job, Output
from rayreel.serving.pools import PoolLost, Step
from rayreel.stages.base import ItemFailure, RenderItem, Result

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a job of a batch is.

    Attributes:
        job: As it was taken.
        pool: Index of the pool that it is in, or waits for.
        step: What was told last.
    """

    job: Job
    pool: int
    step: Step | None


class Batch:
    """Jobs that share a lease and go through the pools together.

    Attributes:
        lease: That they were taken with.
        outcomes: What became of them.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        lease: str,
        gates: Sequence[Gate],
        place: Place,
        settings: DispatchSettings,
    ) -> None:
        """Nothing happens before ``run``.

        Args:
            outcomes: Of the jobs.
            lease: That they were taken with.
            gates: Of all pools, in order.
            place: In the first of them.
            settings: Patience.
        """
        self.lease, self.outcomes = lease, outcomes
        self._gates, self._settings = gates, settings
        first = next(iter(outcomes.jobs.values()))
        self._rank: Rank = (first.due, first.job_id)
        self._adapters = first.adapters
        self._places = [place]
        self._at = 0
        self._steps: dict[str, Step] = {}
        self._singles: dict[str, asyncio.Task[None]] = {}
        self._working = 0
        self._goes_on = True
        self._sign_at = time.monotonic()
        self._closing: asyncio.Future[Callable[[], None]] = (
            asyncio.get_running_loop().create_future()
        )

    @property
    def standings(self) -> list[Standing]:
        """Where the jobs are that are at work."""
        return [
            Standing(job=self.outcomes.jobs[job_id], pool=self._at, step=self._steps.get(job_id))
            for job_id in self.outcomes.live
        ]

    async def run(self) -> None:
        """Go through the pools, and write what becomes of the jobs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.outcomes.journal.run())
            try:
                await self._worked()
            finally:
                for place in self._places:
                    place.leave()
                self.outcomes.journal.close()

    def close(self, verdict: Callable[[], None]) -> None:
        """Stop the work within one step.

        Args:
            verdict: Says what becomes of the jobs that are live then.
        """
        if not self._closing.done():
            self._closing.set_result(verdict)

    def go_no_further(self) -> None:
        """Put its jobs back into the queue instead of into another pool.

        What is at work now is let finish there.
        """
        self._goes_on = False
        if not self._working:
            self._put_back([*self.outcomes.live])
            self.close(lambda: None)

    def cancel(self, job_id: str) -> None:
        """Stop a job as asked."""
        self._stop(job_id, partial(self.outcomes.cancel, job_id))

    def drop(self, job_ids: Collection[str]) -> None:
        """Have nothing to do any more with jobs whose lease is lost."""
        for job_id in job_ids:
            self._stop(job_id, partial(self.outcomes.drop, [job_id]))

    def look(self, now: float) -> None:
        """Stop jobs whose deadline is over, and all if no sign came for too long.

        Args:
            now: In seconds since 1970.
        """
        for job_id in [*self.outcomes.live]:
            deadline_at = self.outcomes.jobs[job_id].deadline_at
            if deadline_at is not None and deadline_at < now:
                self._stop(job_id, partial(self.outcomes.fail, job_id, deadline_exceeded()))
        silent_s = time.monotonic() - self._sign_at
        if self._working and silent_s > self._settings.queue.stall_s and not self._closing.done():
            log.error(
                "%s: no sign from pool %s for %.0f s, stopping it",
                ", ".join(self.outcomes.live),
                self._gates[self._at].pool.name,
                silent_s,
            )
            self.close(lambda: self.outcomes.lost([*self.outcomes.live]))

    def _put_back(self, job_ids: Collection[str]) -> None:
        self.outcomes.release(job_ids, spent=False)

    def _stop(self, job_id: str, verdict: Callable[[], None]) -> None:
        """End a job: the work with it if it is the last one, else only its part."""
        if job_id not in self.outcomes.live:
            return
        if len(self.outcomes.live) == 1:
            self.close(verdict)
            return
        verdict()
        if job_id in self._singles:
            self._singles[job_id].cancel()

    async def _worked(self) -> None:
        """Have the work done, or stopped; then nothing is live."""
        work = asyncio.create_task(self._through())
        try:
            ends: set[asyncio.Future[Any]] = {work, self._closing}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=self._settings.queue.stall_s)
        finally:
            work.cancel()
        live = [*self.outcomes.live]
        if self._closing.done():
            self._closing.result()()
        if not work.done():
            log.error("%s: the work does not stop, and is left alone", ", ".join(live))
            work.add_done_callback(_end_seen)
        elif not work.cancelled() and (error := work.exception()) is not None:
            log.error("%s failed: a fault of the service", ", ".join(live), exc_info=error)
        # What is still live was at work when something of ours failed.
        self.outcomes.broken([*self.outcomes.live])

    async def _through(self) -> None:
        await self._skip_done()
        for index, gate in enumerate(self._gates):
            if index > 0 and not self._goes_on:
                self._put_back([*self.outcomes.live])
            if not self.outcomes.live:
                return
            if index > 0:
                # Until it may wait there it keeps its place here, so that no others follow.
                before = [*self._places]
                front = await self._enter(gate.front, self._rank)
                for place in before:
                    self._leave(place)
                if gate.takes_items:
                    await self._one_by_one(gate, front)
                    continue
                await self._enter(gate.inside, self._rank)
                self._leave(front)
            await self._work(gate, [*self.outcomes.live.values()])
            self._at = index + 1

    async def _enter(self, room: Room, rank: Rank) -> Place:
        place = await room.enter(rank)
        self._places.append(place)
        return place

    def _leave(self, place: Place, _: object = None) -> None:
        self._places.remove(place)
        place.leave()

    async def _one_by_one(self, gate: Gate, front: Place) -> None:
        async with asyncio.TaskGroup() as group:
            for job_id in [*self.outcomes.live]:
                place = await self._enter(gate.inside, (self.outcomes.jobs[job_id].due, job_id))
                if not self._goes_on:
                    self._put_back([job_id])
                item = self.outcomes.live.get(job_id)
                if item is None:
                    self._leave(place)
                    continue
                task = group.create_task(self._single(gate, item))
                # Not in the task: one that is cancelled early does not even begin.
                task.add_done_callback(partial(self._leave, place))
                self._singles[job_id] = task
            # The next batch may come to the door: the last of this one are inside.
            self._leave(front)

    async def _single(self, gate: Gate, item: RenderItem) -> None:
        try:
            await self._work(gate, [item])
        except Exception:
            log.exception("%s failed: a fault of the service", item.item_id)
            self.outcomes.broken([item.item_id])

    async def _work(self, gate: Gate, items: Sequence[RenderItem]) -> None:
        try:
            with self._at_work():
                results = await self._results(gate, items)
        except (PoolLost, StorageError) as error:
            log.warning("pool %s: %s: %s", gate.pool.name, type(error).__name__, error)
            gate.lost()
            left = [item.item_id for item in items if item.item_id in self.outcomes.live]
            why = worker_lost if isinstance(error, PoolLost) else unavailable
            self.outcomes.lost(left, why=why)
            return
        gate.answered()
        for result in results:
            if result.item_id not in self.outcomes.live:
                continue
            if isinstance(result, ItemFailure):
                self.outcomes.failed(result)
            else:
                self.outcomes.progressed(result)
                if gate is self._gates[-1]:
                    self._finish(result)

    def _finish(self, item: RenderItem) -> None:
        if item.output is None:
            raise RuntimeError(f"{item.item_id} is through all pools, and has no file")
        output = Output(
            path=item.output.path, sha256=item.output.sha256, num_bytes=item.output.num_bytes
        )
        self.outcomes.done(item.item_id, output)

    async def _results(self, gate: Gate, items: Sequence[RenderItem]) -> list[Result]:
        results: list[Result] = []
        values = gate.pool.work(items, adapters=self._adapters)
        async with aclosing(values):
            async for value in values:
                self._sign_at = time.monotonic()
                if isinstance(value, Step):
                    self._stepped([item.item_id for item in items], value)
                else:
                    results = value
        if [result.item_id for result in results] != [item.item_id for item in items]:
            raise RuntimeError(
                f"pool {gate.pool.name} was given {[item.item_id for item in items]}, and its "
                f"results are of {[result.item_id for result in results]}"
            )
        return results

    def _stepped(self, job_ids: Sequence[str], step: Step) -> None:
        live = [job_id for job_id in job_ids if job_id in self.outcomes.live]
        self._steps |= dict.fromkeys(live, step)
        self.outcomes.journal.step(live, step)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._sign_at = time.monotonic()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    async def _skip_done(self) -> None:
        """End the jobs that an earlier try has finished, and not told of."""
        for job_id in [*self.outcomes.live]:
            job = self.outcomes.jobs[job_id]
            if job.attempt == 1:
                continue
            try:
                output = await asyncio.to_thread(self._settings.is_done, job)
            except StorageError as error:
                log.warning("%s: doing it again, as %s", job_id, error)
                continue
            if output is not None:
                self.outcomes.done(job_id, output)


def _end_seen(work: "asyncio.Task[None]") -> None:
    """Work that was left alone has ended at last."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.error("work that was left alone failed", exc_info=error)
