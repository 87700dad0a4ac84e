"""How busy the pools are said to be."""

import asyncio

import pytest

from tests.serving.dispatch.fakes import dispatching, fused, in_loop, split, submitted, until


@in_loop
async def test_work_that_waits_counts_for_the_pools_that_it_needs(store):
    pools = split()
    for pool in pools:
        pool.go.clear()
    for index in range(4):
        submitted(store, batch_key=str(index))
    async with dispatching(store, pools) as dispatcher:
        await until(lambda: pools[0].at_work)
        await until(lambda: dispatcher.load().pools["text"].jobs == 4)
        load = dispatcher.load()
    assert load.pools["stage1"].waiting_s == pytest.approx(3 * 0.6)
    assert load.pools["stage1"].running_s == pytest.approx(0.6)
    assert load.pools["text"].running_s == pytest.approx(0.1)
    assert load.pools["decode"].jobs == 4
    assert load.pools["decode"].idle_s == 0


@in_loop
async def test_work_that_is_done_counts_no_more(store):
    pools = split()
    pools[2].go.clear()
    submitted(store)
    async with dispatching(store, pools) as dispatcher:
        await until(lambda: pools[2].at_work)
        await until(lambda: dispatcher.load().pools["text"].jobs == 0)
        load = dispatcher.load()
    assert (load.pools["stage1"].jobs, load.pools["stage1"].running_s) == (0, 0)
    assert load.pools["stage2"].jobs == 1
    assert load.pools["decode"].running_s == pytest.approx(0.1)


@in_loop
async def test_steps_that_are_done_count_no_more(store):
    pool = fused(steps=2, step_s=0.3)
    submitted(store, stage_s={"text": 4.0, "stage1": 1.0})
    async with dispatching(store, [pool]) as dispatcher:
        seen = set()

        def done():
            seen.add(round(dispatcher.load().pools["fused"].running_s, 3))
            return 0.5 in seen

        await until(done)
    assert {5.0, 3.0, 1.0, 0.5} <= seen


@in_loop
async def test_a_pool_without_work_says_for_how_long(store):
    async with dispatching(store, [fused(replicas=0)]) as dispatcher:
        await asyncio.sleep(0.3)
        load = dispatcher.load().pools["fused"]
    assert (load.jobs, load.replicas, load.waiting_s) == (0, 0, 0)
    assert 0.3 <= load.idle_s < 5


@in_loop
async def test_a_long_queue_is_told_from_its_head(store, monkeypatch):
    monkeypatch.setattr("rayreel.serving.dispatch.dispatcher._AHEAD", 5)
    pool = fused()
    pool.go.clear()
    for _ in range(21):
        submitted(store)
    async with dispatching(store, [pool]) as dispatcher:
        await until(lambda: pool.at_work)
        await until(lambda: dispatcher.load().pools["fused"].jobs == 21)
        assert dispatcher.load().pools["fused"].waiting_s == pytest.approx(20 * 1.0)
