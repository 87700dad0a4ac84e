"""What is written of a batch: in order, and until it is written, however long the store is away."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rayreel.errors import StorageError
from rayreel.serving.dispatch.patience import pauses, until_answered
from rayreel.serving.pools import Step
from rayreel.serving.store import JobStore

_STEPS_EVERY_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Write:
    call: Callable[[], Any]
    then: Callable[[Any], None] | None


class Journal:
    """Writes of one batch; nobody who hands one in waits for it."""

    def __init__(self, store: JobStore, lease: str) -> None:
        """Start empty.

        Args:
            store: Written to.
            lease: Of the batch.
        """
        self._store, self._lease = store, lease
        self._writes: deque[_Write] = deque()
        self._steps: dict[str, Step] = {}
        self._pictures: dict[str, bytes] = {}
        self._stages: dict[str, str] = {}
        self._written_at = float("-inf")
        self._pauses = pauses()
        self._news = asyncio.Event()
        self._closed = False

    def write(self, call: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Write something after all that was handed in before.

        Args:
            call: Of the store, made in a thread until it answers.
            then: Told what it returned, in the loop.
        """
        self._writes.append(_Write(call, then))
        self._news.set()

    def step(self, job_ids: Collection[str], step: Step) -> None:
        """Show how far jobs have come: soon, and at once if it is another stage."""
        self._steps |= dict.fromkeys(job_ids, replace(step, pictures=()))
        self._pictures |= {job_id: made for job_id, made in step.pictures if job_id in job_ids}
        self._news.set()

    def forget(self, job_id: str) -> None:
        """Show no more steps of a job."""
        self._steps.pop(job_id, None)
        self._pictures.pop(job_id, None)

    def close(self) -> None:
        """Nothing else will be handed in."""
        self._closed = True
        self._news.set()

    async def run(self) -> None:
        """Write until it is closed and all is written; steps that are left then are not."""
        while True:
            self._news.clear()
            if self._writes:
                await self._do(self._writes.popleft())
            elif self._closed:
                return
            elif self._steps and self._wait_s() <= 0:
                await self._show()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s() if self._steps else None):
                        await self._news.wait()

    async def _do(self, write: _Write) -> None:
        try:
            result = await until_answered(write.call)
            if write.then is not None:
                write.then(result)
        except Exception:
            # Others of the batch are still to be written. This job goes stale, and is taken over.
            log.exception("lease %s: a write failed", self._lease)

    def _wait_s(self) -> float:
        if any(self._stages.get(job_id) != step.stage for job_id, step in self._steps.items()):
            return 0.0
        return self._written_at + _STEPS_EVERY_S - time.monotonic()

    async def _show(self) -> None:
        steps, self._steps = self._steps, {}
        pictures, self._pictures = self._pictures, {}
        alike: dict[Step, list[str]] = {}
        for job_id, step in steps.items():
            alike.setdefault(step, []).append(job_id)
            self._stages[job_id] = step.stage
        try:
            for step, ids in alike.items():
                await asyncio.to_thread(
                    partial(
                        self._store.progress,
                        self._lease,
                        ids,
                        stage=step.stage,
                        step=step.step,
                        steps=step.steps,
                        pictures={name: pictures[name] for name in ids if name in pictures},
                    )
                )
            self._pauses = pauses()
        except StorageError as error:
            # What has come since is newer.
            self._steps = steps | self._steps
            self._pictures = pictures | self._pictures
            log.warning("lease %s: steps are not written: %s", self._lease, error)
            await asyncio.sleep(next(self._pauses))
        except Exception:
            log.exception("lease %s: steps %s are not written", self._lease, steps)
        self._written_at = time.monotonic()
