"""Jobs, pools that do next to nothing, a store that goes away, and loops to run them in."""

import asyncio
import functools
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from rayreel.config.jobs import StageName
from rayreel.config.request import RenderRequest
from rayreel.config.serving import QueueSpec
from rayreel.errors import StorageError
from rayreel.serving.dispatch import Dispatcher, DispatchSettings, Event
from rayreel.serving.jobs import Job, NewJob
from rayreel.serving.pools import PoolLost, Step
from rayreel.serving.store import JobStore
from rayreel.stages.base import Artifact, ItemFailure, RenderItem, Result

_NUMBERS = itertools.count(1)


def in_loop(test):
    """A test that is a coroutine, and ends."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


async def until(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    """What a condition says once it holds."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, "it does not come to hold"
        await asyncio.sleep(0.01)
    return value


def new_job(**changes: Any) -> NewJob:
    """A job of a small clip that came just now."""
    now = time.time()
    values: dict[str, Any] = {
        "job_id": f"video_{next(_NUMBERS):032x}",
        "owner": "",
        "kind": "video",
        "request": RenderRequest(prompt="a fox", seed=1, enhance=changes.pop("enhance", False)),
        "asked": {"prompt": "a fox"},
        "shape": "small",
        "batch_key": "small",
        "adapters": "",
        "cost_s": 1.0,
        "priority": "normal",
        "due": changes.get("created_at", now),
        "created_at": now,
        "stage_s": {"text": 0.1, "stage1": 0.6, "stage2": 0.2, "decode": 0.1},
    }
    return NewJob(**values | changes)


def submitted(store: JobStore, **changes: Any) -> str:
    """Id of a new job in the store."""
    return store.submit(new_job(**changes), max_jobs=10_000, max_jobs_per_owner=10_000)[0].job_id


def state(store: JobStore, job_id: str) -> str:
    """Of a job that is there."""
    return job(store, job_id).state


def job(store: JobStore, job_id: str) -> Job:
    """One that is there."""
    found = store.get(job_id)
    assert found is not None
    return found


@dataclass
class FakePool:
    """Waits a little for each step, counts what is at work, and has what troubles it is told to.

    Attributes:
        go: Steps are only made while it is set.
        losses: How often it loses its worker yet, by item.
        failures: Of items, each returned once.
        fault: Raised by the next work.
        batches: Ids of all that came.
        step: That was made last.
        most: Works at the same time.
    """

    name: str
    stages: tuple[StageName, ...]
    replicas: int = 1
    steps: int = 2
    step_s: float = 0.002
    close_s: float = 0.0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    losses: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[ItemFailure]] = field(default_factory=dict)
    fault: Exception | None = None
    batches: list[tuple[str, ...]] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    step: Step = field(default_factory=lambda: Step(stage="text"))
    at_work: int = 0
    most: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.go.set()

    async def work(self, items: Sequence[RenderItem], *, adapters: str = ""):
        self.batches.append(tuple(item.item_id for item in items))
        self.adapters.append(adapters)
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            for stage in self.stages:
                yield Step(stage=stage)
                for step in range(self.steps):
                    await asyncio.sleep(self.step_s)
                    await self.go.wait()
                    self._troubled(items)
                    self.step = Step(stage=stage, step=step + 1, steps=self.steps)
                    yield self.step
            yield [self._result(item) for item in items]
        finally:
            if self.close_s:
                await asyncio.sleep(self.close_s)
            self.at_work -= 1

    def _troubled(self, items: Sequence[RenderItem]) -> None:
        for item in items:
            if self.losses[item.item_id]:
                self.losses[item.item_id] -= 1
                raise PoolLost("gone")
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def _result(self, item: RenderItem) -> Result:
        if self.failures.get(item.item_id):
            return self.failures[item.item_id].pop(0)
        self.done[item.item_id] += 1
        item = replace(item, seconds=(*item.seconds, *((stage, 0.5) for stage in self.stages)))
        if "text" in self.stages and item.request.enhance:
            item = replace(item, prompts=("a red fox in the snow",), notes=("written out",))
        if "decode" in self.stages:
            path = f"videos/{item.item_id}.mp4"
            item = replace(item, output=Artifact(path=path, sha256="0", num_bytes=1))
        return item


def split(**changes: Any) -> list[FakePool]:
    """A pool for each stage."""
    stages: tuple[StageName, ...] = ("text", "stage1", "stage2", "decode")
    return [FakePool(name=stage, stages=(stage,), **changes) for stage in stages]


def fused(**changes: Any) -> FakePool:
    """One pool of all stages."""
    return FakePool(name="fused", stages=("text", "stage1", "stage2", "decode"), **changes)


def failure(job_id: str, error: str, *, retryable: bool = False, message: str = "") -> ItemFailure:
    """What a stage says of an item that it could not do."""
    return ItemFailure(
        item_id=job_id,
        stage="stage1",
        error=error,
        message=message or error,
        seed=1,
        attempt=1,
        seconds=0.25,
        retryable=retryable,
    )


class Away:
    """A store that sometimes does not answer."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.away = False
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            if self.away:
                raise StorageError("jobs.sqlite does not answer")
            return getattr(self._store, name)(*args, **kwargs)

        return call


@asynccontextmanager
async def dispatching(
    store: JobStore | Away,
    pools: Sequence[FakePool],
    *,
    told: Callable[[Event], None] | None = None,
    batch_size: int = 1,
    retention_s: float | None = None,
    keep: Callable[[Job], None] = lambda _: None,
    is_done: Callable[[Job], Any] = lambda _: None,
    **queue: Any,
) -> AsyncIterator[Dispatcher]:
    """A dispatcher at work, stopped at the end."""
    settings = DispatchSettings(
        queue=QueueSpec(**{"batch_wait_s": 0.02, "stale_s": 1.0} | queue),
        batch_size=batch_size,
        retention_s=retention_s,
        keep=keep,
        is_done=is_done,
    )
    told = told or (lambda _: None)
    dispatcher = Dispatcher(cast("JobStore", store), pools, settings, told=told)
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run())
        yield dispatcher
        for pool in pools:
            pool.go.set()
        await dispatcher.stop(0)
