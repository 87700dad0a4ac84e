"""Jobs from the queue to their ends, where nothing goes wrong."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

from rayreel.serving.dispatch import Dispatcher, Event
from rayreel.serving.jobs import Output
from rayreel.serving.pools import Step
from tests.serving.dispatch.fakes import (
    FakePool,
    dispatching,
    fused,
    in_loop,
    job,
    split,
    state,
    submitted,
    until,
)


@in_loop
async def test_a_job_goes_through_all_pools_and_is_done(store):
    events: list[Event] = []
    async with dispatching(store, split(), told=events.append, retention_s=60.0) as dispatcher:
        job_id = submitted(store, adapters="style")
        dispatcher.wake()
        await until(lambda: state(store, job_id) == "done")
    done = job(store, job_id)
    assert done.output == Output(path=f"videos/{job_id}.mp4", sha256="0", num_bytes=1)
    assert done.seconds == {"text": 0.5, "stage1": 0.5, "stage2": 0.5, "decode": 0.5}
    assert (done.expires_at or 0) - (done.finished_at or 0) == 60.0
    assert [(event.what, event.job.job_id) for event in events] == [
        ("taken", job_id),
        ("done", job_id),
    ]


@in_loop
async def test_pools_are_told_of_adapters(store):
    pool = fused()
    async with dispatching(store, [pool]):
        submitted(store, adapters="style")
        await until(lambda: pool.adapters == ["style"])


@in_loop
async def test_jobs_that_nobody_tells_of_are_found(store):
    async with dispatching(store, [fused()]):
        await asyncio.sleep(0.1)
        job_id = submitted(store)
        await until(lambda: state(store, job_id) == "done")


async def stepped(pool, stage, step):
    await until(lambda: (pool.step.stage, pool.step.step) == (stage, step))


@in_loop
async def test_the_stage_and_the_last_step_are_seen_soon(store):
    pool = fused(steps=3, step_s=0.1)
    async with dispatching(store, [pool]):
        job_id = submitted(store)
        for stage in ("text", "stage1", "stage2"):
            await stepped(pool, stage, 2)
            pool.go.clear()
            await asyncio.sleep(0.3)
            seen = job(store, job_id)
            assert (seen.stage, seen.step, seen.steps) == (stage, pool.step.step, 3)
            pool.go.set()
        await until(lambda: state(store, job_id) == "done")


@in_loop
async def test_steps_are_written_at_most_five_times_a_second(store):
    versions, start = set(), time.monotonic()
    pool = FakePool(name="decode", stages=("decode",), steps=50, step_s=0.005)
    async with dispatching(store, [pool]):
        job_id = submitted(store)

        def done():
            versions.add(job(store, job_id).version)
            return state(store, job_id) == "done"

        await until(done)
    # Besides it is taken, enters the stage, and ends.
    assert len(versions) <= 4 + (time.monotonic() - start) / 0.2


class PaintingPool(FakePool):
    """Shows a picture of each item with each step."""

    async def work(self, items, *, adapters=""):
        pictures = tuple((item.item_id, item.item_id.encode()) for item in items)
        async with aclosing(super().work(items, adapters=adapters)) as values:
            async for value in values:
                yield replace(value, pictures=pictures) if isinstance(value, Step) else value


@in_loop
async def test_pictures_of_a_batch_are_seen_until_the_jobs_are_done(store):
    pool = PaintingPool(name="stage1", stages=("stage1",), steps=3, step_s=0.3)
    first, second = submitted(store), submitted(store)
    async with dispatching(store, [pool, *split()[3:]], batch_size=2):
        await until(lambda: all(job(store, one).preview > 1 for one in (first, second)))
        assert pool.batches == [(first, second)]
        for one in (first, second):
            assert store.picture(one) == one.encode()
        await until(lambda: state(store, first) == state(store, second) == "done")
    assert [store.picture(one) for one in (first, second)] == [None, None]


@in_loop
async def test_a_written_prompt_is_told_before_the_clip_is_made(store):
    pools = split()
    pools[1].go.clear()
    async with dispatching(store, pools):
        job_id = submitted(store, enhance=True)
        await until(lambda: job(store, job_id).written)
        assert job(store, job_id).written == "a red fox in the snow"
        assert job(store, job_id).notes == ("written out",)
        assert state(store, job_id) == "running"


@in_loop
async def test_like_jobs_share_a_batch_and_decode_one_by_one(store):
    pools = split()
    pools[3].replicas = 2
    ids = {submitted(store) for _ in range(4)}
    async with dispatching(store, pools, batch_size=4):
        await until(lambda: all(state(store, one) == "done" for one in ids))
    assert [set(batch) for batch in pools[1].batches] == [ids]
    assert sorted(pools[3].batches) == sorted((one,) for one in ids)
    assert pools[3].most == 2


@in_loop
async def test_a_job_waits_for_like_ones_no_longer_than_it_is_told(store):
    pool = fused()
    async with dispatching(store, [pool], batch_size=4, batch_wait_s=0.3) as dispatcher:
        start, ids = time.monotonic(), []
        for _ in range(2):
            ids.append(submitted(store))
            dispatcher.wake()
            await asyncio.sleep(0.05)
        await until(lambda: pool.batches)
        assert 0.25 < time.monotonic() - start < 0.8
    assert set(pool.batches[0]) == set(ids)


@in_loop
async def test_a_late_job_of_high_priority_overtakes_all_that_wait(store):
    pools = split()
    pools[1].go.clear()
    early = [submitted(store, batch_key=str(i)) for i in range(8)]
    async with dispatching(store, pools) as dispatcher:
        # One is at work, one waits in front of it, and one is through with the text.
        await until(lambda: len(pools[0].batches) == 3)
        await asyncio.sleep(0.1)
        late = submitted(store, due=0.0)
        pools[1].go.set()
        dispatcher.wake()
        await until(lambda: state(store, late) == "done")
        order = [batch[0] for batch in pools[1].batches]
        assert order[:4] == [*early[:3], late]


@in_loop
async def test_no_pool_has_more_at_work_than_it_has_actors(store):
    pools = split()
    pools[1].replicas, pools[1].step_s, pools[2].replicas = 2, 0.1, 0
    ids = [submitted(store, batch_key=str(i)) for i in range(8)]
    async with dispatching(store, pools):
        await until(lambda: all(state(store, one) == "done" for one in ids))
    assert [pool.most for pool in pools] == [1, 2, 1, 1]


@in_loop
async def test_a_pool_that_grows_gets_more(store):
    pool = fused()
    pool.go.clear()
    [submitted(store, batch_key=str(i)) for i in range(3)]
    async with dispatching(store, [pool]):
        await until(lambda: pool.at_work == 1)
        pool.replicas = 3
        await until(lambda: pool.at_work == 3)


@in_loop
async def test_two_dispatchers_share_a_queue(store):
    one, other = fused(), fused()
    ids = [submitted(store) for _ in range(20)]
    async with dispatching(store, [one]), dispatching(store, [other]):
        await until(lambda: all(state(store, job_id) == "done" for job_id in ids))
    assert sorted((one.done + other.done).elements()) == sorted(ids)


@in_loop
async def test_what_runs_may_finish_when_it_is_stopped(store):
    pool = fused(step_s=0.05)
    first, second = submitted(store), submitted(store)
    async with dispatching(store, [pool]) as dispatcher:
        await until(lambda: pool.at_work)
        await dispatcher.stop(10.0)
    assert (state(store, first), state(store, second)) == ("done", "queued")


@in_loop
async def test_what_does_not_finish_in_time_goes_back_and_spends_no_try(store):
    pool = fused()
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool]) as dispatcher:
        await until(lambda: pool.at_work)
        await dispatcher.stop(0.1)
        assert (state(store, job_id), job(store, job_id).attempt) == ("queued", 1)
        assert pool.at_work == 0


@in_loop
async def test_where_pools_end_work_goes_no_further(store):
    pools, stage1 = split(), "stage1"
    pools[1].go.clear()
    ids = [submitted(store, batch_key=str(number)) for number in range(3)]
    async with dispatching(store, pools) as dispatcher:
        # One works there, one waits before it, and one is through the texts.
        await until(lambda: len(pools[0].done) == 3 and job(store, ids[0]).stage == stage1)
        stopped = asyncio.create_task(dispatcher.stop(30.0, pools_end=True))
        await until(lambda: [state(store, one) for one in ids[1:]] == ["queued"] * 2)
        assert state(store, ids[0]) == "running"
        pools[1].go.set()
        await stopped
    assert [(state(store, one), job(store, one).attempt) for one in ids] == [("queued", 1)] * 3
    assert [len(pool.batches) for pool in pools] == [3, 1, 0, 0]


@in_loop
async def test_where_pools_end_what_is_decoded_is_done(store):
    pools = split()
    pools[3].go.clear()
    ids = [submitted(store) for _ in range(3)]
    async with dispatching(store, pools, batch_size=3) as dispatcher:
        await until(lambda: pools[3].at_work)
        stopped = asyncio.create_task(dispatcher.stop(30.0, pools_end=True))
        await asyncio.sleep(0.02)
        pools[3].go.set()
        await stopped
    assert [state(store, one) for one in ids] == ["done", "queued", "queued"]


@in_loop
async def test_a_stop_in_the_middle_of_nothing_ends_it(store):
    async with dispatching(store, [fused()]) as dispatcher:
        assert isinstance(dispatcher, Dispatcher)


@in_loop
async def test_expired_jobs_go_with_their_files(store):
    removed = []
    old, kept = submitted(store), submitted(store)
    store.take([old, kept], "before", 0.0)
    output = Output(path="x", sha256="0", num_bytes=1)
    store.finish("before", old, output, seconds={}, now=0.0, expires_at=1.0)
    store.finish("before", kept, output, seconds={}, now=0.0, expires_at=None)
    async with dispatching(store, [fused()], keep=lambda job: removed.append(job.job_id)):
        await until(lambda: store.get(old) is None)
    assert removed == [old]
    assert store.get(kept) is not None


@in_loop
async def test_a_job_stays_while_its_files_cannot_be_removed(store):
    ids = [submitted(store) for _ in range(2)]
    store.take(ids, "before", 0.0)
    for one in ids:
        store.cancelled("before", one, 0.0, 1.0)

    def keep(job):
        if job.job_id == ids[0]:
            raise OSError("read-only")

    async with dispatching(store, [fused()], keep=keep):
        await until(lambda: store.get(ids[1]) is None)
    assert store.get(ids[0]) is not None
