"""Jobs that end otherwise than well, or not at the first try."""

import asyncio
import time

import pytest

from rayreel.errors import StorageError
from rayreel.serving.jobs import Output
from tests.serving.dispatch.fakes import (
    dispatching,
    failure,
    fused,
    in_loop,
    job,
    split,
    state,
    submitted,
    until,
)


def ended(store, *job_ids):
    return lambda: all(job(store, job_id).finished for job_id in job_ids)


@in_loop
async def test_a_cancelled_job_is_stopped_and_its_place_is_free(store):
    pool = fused(close_s=0.05)
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool]) as dispatcher:
        await until(lambda: pool.at_work)
        store.ask_cancel(job_id)
        dispatcher.cancel(job_id)
        await asyncio.sleep(0.02)
        # Only who is not at work any more is cancelled.
        assert (pool.at_work, state(store, job_id)) == (1, "running")
        await until(ended(store, job_id))
        assert (pool.at_work, state(store, job_id)) == (0, "cancelled")
        pool.go.set()
        after = submitted(store)
        await until(lambda: state(store, after) == "done")


@in_loop
async def test_a_cancellation_in_the_store_alone_is_found(store):
    pool = fused()
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool]):
        await until(lambda: pool.at_work)
        store.ask_cancel(job_id)
        await until(lambda: state(store, job_id) == "cancelled", within_s=2.0)


@in_loop
async def test_a_cancellation_while_a_job_is_taken_is_not_lost(store):
    pool = fused()
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool]) as dispatcher:
        while not pool.at_work and state(store, job_id) == "queued":
            dispatcher.cancel(job_id)
            await asyncio.sleep(0)
        dispatcher.cancel(job_id)
        await until(lambda: state(store, job_id) == "cancelled", within_s=2.0)


@in_loop
async def test_one_cancelled_job_of_a_batch_does_not_stop_the_others(store):
    pool = fused()
    pool.go.clear()
    first, second = submitted(store), submitted(store)
    async with dispatching(store, [pool], batch_size=2) as dispatcher:
        await until(lambda: pool.at_work)
        dispatcher.cancel(first)
        await until(lambda: state(store, first) == "cancelled")
        assert pool.at_work == 1
        pool.go.set()
        await until(lambda: state(store, second) == "done")
        assert state(store, first) == "cancelled"


@in_loop
async def test_a_batch_of_cancelled_jobs_is_stopped(store):
    pool = fused()
    pool.go.clear()
    ids = [submitted(store), submitted(store)]
    async with dispatching(store, [pool], batch_size=2) as dispatcher:
        await until(lambda: pool.at_work)
        for job_id in ids:
            dispatcher.cancel(job_id)
        await until(lambda: [state(store, one) for one in ids] == ["cancelled"] * 2)
        assert pool.at_work == 0


@in_loop
async def test_one_job_is_cancelled_while_those_of_its_batch_are_decoded(store):
    pools = split()
    decode = pools[3]
    decode.replicas = 3
    decode.go.clear()
    ids = [submitted(store) for _ in range(3)]
    async with dispatching(store, pools, batch_size=3) as dispatcher:
        await until(lambda: decode.at_work == 3)
        dispatcher.cancel(ids[1])
        await until(lambda: decode.at_work == 2)
        decode.go.set()
        await until(ended(store, *ids))
        assert [state(store, one) for one in ids] == ["done", "cancelled", "done"]


@in_loop
async def test_a_job_that_waits_in_front_of_a_pool_is_cancelled_at_once(store):
    pools = split()
    pools[1].go.clear()
    ids = [submitted(store, batch_key=str(i)) for i in range(3)]
    async with dispatching(store, pools) as dispatcher:
        await until(lambda: len(pools[0].batches) == 3)
        dispatcher.cancel(ids[1])
        await until(lambda: state(store, ids[1]) == "cancelled")
        pools[1].go.set()
        await until(ended(store, *ids))
        assert [batch[0] for batch in pools[1].batches] == [ids[0], ids[2]]


@in_loop
async def test_deadlines_end_jobs_that_wait_and_jobs_that_run(store):
    pool = fused()
    pool.go.clear()
    now = time.time()
    ids = [submitted(store, deadline_at=now + 0.4) for _ in range(2)]
    late = submitted(store, deadline_at=now - 1)
    async with dispatching(store, [pool], retention_s=9.0):
        await until(ended(store, *ids, late))
        assert {job(store, one).error for one in (*ids, late)} == {"deadline_exceeded"}
        assert job(store, late).expires_at
        await until(lambda: pool.at_work == 0)
    assert pool.batches == [(ids[0],)]


@in_loop
async def test_a_lost_worker_costs_a_try_and_its_jobs_run_alone(store):
    pool = fused()
    ids = [submitted(store), submitted(store)]
    pool.losses[ids[0]] = 1
    async with dispatching(store, [pool], batch_size=2):
        await until(ended(store, *ids))
    assert [(state(store, one), job(store, one).attempt) for one in ids] == [("done", 2)] * 2
    assert [len(batch) for batch in pool.batches] == [2, 1, 1]


@in_loop
async def test_a_job_that_always_loses_its_worker_is_given_up(store):
    pool = fused()
    job_id, other = submitted(store), submitted(store)
    pool.losses[job_id] = 99
    async with dispatching(store, [pool], attempts=2):
        await until(ended(store, job_id, other))
    assert job(store, job_id).error == "worker_lost"
    assert (state(store, other), pool.batches.count((job_id,))) == ("done", 2)


@in_loop
async def test_a_pool_that_cannot_start_does_not_use_up_the_tries_of_all_jobs(store):
    pool = fused()
    ids = [submitted(store, batch_key=str(i)) for i in range(20)]
    pool.losses.update(dict.fromkeys(ids, 99))
    async with dispatching(store, [pool], attempts=2):
        await asyncio.sleep(0.8)
        assert len(pool.batches) <= 2


@in_loop
async def test_a_failure_that_may_go_otherwise_is_tried_again(store):
    pool = fused()
    job_id = submitted(store)
    pool.failures[job_id] = [failure(job_id, "RetryableError", retryable=True)] * 2
    async with dispatching(store, [pool], attempts=3):
        await until(ended(store, job_id))
    assert (state(store, job_id), job(store, job_id).attempt) == ("done", 3)


@in_loop
async def test_one_bad_item_fails_with_what_the_client_may_know(store):
    pool = fused()
    bad, good = submitted(store), submitted(store)
    said = "/srv/uploads/cat.png is no image"
    pool.failures[bad] = [failure(bad, "MediaError", message=said)]
    async with dispatching(store, [pool], batch_size=2):
        await until(ended(store, bad, good))
    failed = job(store, bad)
    assert (failed.state, failed.error, failed.attempt) == ("failed", "invalid_media", 1)
    assert failed.message == "cat.png is no image"
    assert failed.seconds == {"stage1": 0.25}
    assert state(store, good) == "done"


@in_loop
@pytest.mark.parametrize("at", [1, 3])
async def test_a_fault_fails_its_batch_and_the_next_one_goes_on(store, caplog, at):
    pools = split()
    pools[at].fault = KeyError("a secret")
    bad = submitted(store)
    async with dispatching(store, pools):
        await until(ended(store, bad))
        good = submitted(store)
        await until(lambda: state(store, good) == "done")
    assert job(store, bad).error == "internal"
    assert "secret" not in job(store, bad).message
    assert "KeyError: 'a secret'" in caplog.text


@in_loop
async def test_results_of_the_wrong_items_are_a_fault(store):
    pool, job_id = fused(), submitted(store)
    pool.failures[job_id] = [failure("another", "ItemError")]
    async with dispatching(store, [pool]):
        await until(ended(store, job_id))
    assert job(store, job_id).error == "internal"


@in_loop
async def test_whoever_is_told_and_fails_disturbs_nobody(store):
    def told(event):
        raise ValueError(event.what)

    job_id = submitted(store)
    async with dispatching(store, [fused()], told=told):
        await until(lambda: state(store, job_id) == "done")


@in_loop
async def test_work_without_a_sign_is_stopped_and_tried_again(store):
    pool = fused()
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool], stall_s=1.0):
        await until(lambda: pool.at_work)
        await until(lambda: pool.at_work == 0)
        pool.go.set()
        await until(ended(store, job_id))
    assert (state(store, job_id), job(store, job_id).attempt) == ("done", 2)


@in_loop
async def test_work_that_cannot_even_be_stopped_is_left_alone(store):
    pool = fused(close_s=5.0)
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool], stall_s=1.0, attempts=1):
        await until(ended(store, job_id))
        assert (job(store, job_id).error, pool.at_work) == ("worker_lost", 1)
        pool.close_s = 0.0
        pool.go.set()
        other = submitted(store)
        await until(lambda: state(store, other) == "done")


@in_loop
async def test_what_an_earlier_try_has_finished_is_not_done_again(store):
    pool, asked = fused(), []
    fresh, tried = submitted(store), submitted(store)
    store.take([tried], "before", time.time())
    store.release("before", [tried])

    def is_done(job):
        asked.append(job.job_id)
        return Output(path="videos/before.mp4", sha256="0", num_bytes=1)

    async with dispatching(store, [pool], is_done=is_done):
        await until(ended(store, fresh, tried))
    assert asked == [tried]
    assert pool.batches == [(fresh,)]
    output = job(store, tried).output
    assert output is not None
    assert output.path == "videos/before.mp4"


@in_loop
async def test_a_ledger_that_does_not_answer_costs_another_render(store):
    def is_done(job):
        raise StorageError("away")

    tried = submitted(store)
    store.take([tried], "before", time.time())
    store.release("before", [tried])
    async with dispatching(store, [fused()], is_done=is_done):
        await until(lambda: state(store, tried) == "done")


@in_loop
async def test_jobs_of_a_dispatcher_that_is_gone_are_taken_over(store):
    left, spent = submitted(store), submitted(store)
    store.take([left, spent], "gone", time.time())
    for _ in range(2):
        store.release("gone", [spent])
        store.take([spent], "gone", time.time())
    pool = fused()
    async with dispatching(store, [pool], attempts=3):
        await until(ended(store, left, spent))
    assert (state(store, left), job(store, left).attempt) == ("done", 2)
    assert (state(store, spent), job(store, spent).error) == ("failed", "worker_lost")


@in_loop
async def test_long_work_is_not_taken_over_by_another_dispatcher(store):
    one, other = fused(), fused()
    one.go.clear()
    async with dispatching(store, [one]):
        job_id = submitted(store)
        await until(lambda: one.at_work)
        async with dispatching(store, [other]):
            await asyncio.sleep(2.0)
            assert other.batches == []
        one.go.set()
        await until(lambda: state(store, job_id) == "done")
        assert job(store, job_id).attempt == 1


@in_loop
async def test_work_whose_lease_is_lost_is_stopped_and_changes_nothing(store):
    pool = fused()
    pool.go.clear()
    job_id = submitted(store)
    async with dispatching(store, [pool]):
        await until(lambda: pool.at_work)
        store.release(job(store, job_id).lease, [job_id])
        store.take([job_id], "another's", time.time())
        await until(lambda: pool.at_work == 0)
        assert (state(store, job_id), job(store, job_id).lease) == ("running", "another's")
