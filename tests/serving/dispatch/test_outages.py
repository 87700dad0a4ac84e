"""A store that does not answer for a while."""

import asyncio
from dataclasses import replace

from tests.serving.dispatch.fakes import (
    Away,
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


@in_loop
async def test_work_goes_on_and_its_results_are_written_when_the_store_is_back(store):
    away, pools = Away(store), split()
    pools[1].go.clear()
    job_id = submitted(store, enhance=True)
    async with dispatching(away, pools):
        await until(lambda: pools[1].at_work)
        away.away = True
        pools[1].go.set()
        await until(lambda: pools[3].done[job_id])
        assert state(store, job_id) == "running"
        away.away = False
        await until(lambda: state(store, job_id) == "done")
    assert job(store, job_id).written == "a red fox in the snow"


@in_loop
async def test_new_work_is_taken_when_the_store_is_back(store):
    away, pool = Away(store), fused()
    away.away = True
    job_id = submitted(store)
    async with dispatching(away, [pool]) as dispatcher:
        for _ in range(50):
            dispatcher.wake()
            await asyncio.sleep(0.01)
        # Asked over and over it would be in no hurry to come back.
        assert away.calls["queued"] < 10
        away.away = False
        await until(lambda: state(store, job_id) == "done")


@in_loop
async def test_failures_and_releases_are_not_forgotten_either(store):
    away, pool = Away(store), fused()
    pool.go.clear()
    bad, again = submitted(store), submitted(store)
    pool.failures[bad] = [failure(bad, "ItemError")]
    pool.failures[again] = [replace(failure(again, "ItemError"), retryable=True)]
    async with dispatching(away, [pool], batch_size=2):
        await until(lambda: pool.at_work)
        away.away = True
        pool.go.set()
        await until(lambda: not pool.at_work)
        await asyncio.sleep(0.5)
        away.away = False
        await until(lambda: (state(store, bad), state(store, again)) == ("failed", "done"))


@in_loop
async def test_a_stop_does_not_wait_for_a_store_for_ever(store, monkeypatch):
    monkeypatch.setattr("rayreel.serving.dispatch.dispatcher._LAST_WORDS_S", 0.3)
    away, pool = Away(store), fused()
    pool.go.clear()
    submitted(store)
    async with dispatching(away, [pool]) as dispatcher:
        await until(lambda: pool.at_work)
        away.away = True
        await asyncio.wait_for(dispatcher.stop(0.1), 3)
