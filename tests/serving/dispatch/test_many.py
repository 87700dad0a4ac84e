"""Many jobs at once."""

import asyncio
import random
from collections import Counter

from rayreel.serving.jobs import Job
from tests.serving.dispatch.fakes import dispatching, in_loop, job, split, state, submitted, until


@in_loop
async def test_many_jobs_all_end_once_and_move_only_forward(store):
    random.seed(1)
    pools = split(step_s=0.0)
    pools[1].replicas = pools[3].replicas = 2
    due = {
        submitted(
            store,
            batch_key=random.choice("abcd"),
            due=float(index),
        ): float(index)
        for index in range(300)
    }
    places: dict[str, int] = dict.fromkeys(due, 10**9)
    async with dispatching(store, pools, batch_size=4):

        def over():
            for job_id, place in store.places([*due]).items():
                assert place.ahead <= places[job_id]
                places[job_id] = place.ahead
            return store.totals().queued + store.totals().running == 0

        await until(over, within_s=50.0)
    assert all(state(store, job_id) == "done" for job_id in due)
    assert pools[3].done == Counter(dict.fromkeys(due, 1))
    for key in "abcd":
        mine = [one for batch in pools[0].batches for one in batch if key_of(store, one) == key]
        assert [due[one] for one in mine] == sorted(due[one] for one in mine)
    assert all(len({key_of(store, one) for one in batch}) == 1 for batch in pools[1].batches)
    assert all(pool.most <= pool.replicas for pool in pools)


def key_of(store, job_id):
    found: Job = job(store, job_id)
    return found.batch_key


async def at_work(pool):
    await until(lambda: pool.at_work)


@in_loop
async def test_jobs_that_are_cancelled_at_any_step_are_all_cancelled(store):
    random.seed(2)
    pools, cancelled = split(steps=4), []
    async with dispatching(store, pools) as dispatcher:
        for _ in range(100):
            held = random.choice(pools)
            held.go.clear()
            job_id = submitted(store)
            dispatcher.wake()
            await at_work(held)
            await asyncio.sleep(random.uniform(0, 0.01))
            store.ask_cancel(job_id)
            dispatcher.cancel(job_id)
            cancelled.append(job_id)
            await until(lambda: not any(pool.at_work for pool in pools), within_s=1.0)
            held.go.set()
        await until(lambda: all(state(store, one) == "cancelled" for one in cancelled))
        after = submitted(store)
        await until(lambda: state(store, after) == "done")
