"""Who goes into a pool, and when."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from rayreel.serving.dispatch.gates import Gate, Room
from tests.serving.dispatch.fakes import fused, in_loop, until


@in_loop
async def test_whoever_has_the_smallest_rank_goes_in_next():
    room = Room(lambda: 1, lambda: None)
    inside, order = await room.enter((0.0, "")), []

    async def wait(due):
        place = await room.enter((due, ""))
        order.append(due)
        place.leave()

    async with asyncio.TaskGroup() as group:
        for due in (3.0, 1.0, 2.0):
            group.create_task(wait(due))
        await asyncio.sleep(0)
        inside.leave()
    assert order == [1.0, 2.0, 3.0]


@given(st.lists(st.tuples(st.floats(0, 9), st.booleans()), max_size=12), st.integers(1, 3))
def test_a_room_holds_no_more_than_it_may_and_forgets_who_gave_up(visits, size):
    inside, most = 0, 0

    async def visit(room, due):
        nonlocal inside, most
        place = await room.enter((due, ""))
        inside, most = inside + 1, max(most, inside + 1)
        try:
            await asyncio.sleep(0)
        finally:
            inside -= 1
            place.leave()
            place.leave()

    async def scenario():
        room = Room(lambda: size, lambda: None)
        tasks = [asyncio.create_task(visit(room, due)) for due, _ in visits]
        await asyncio.sleep(0)
        for task, (_, gives_up) in zip(tasks, visits, strict=True):
            if gives_up:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return room.free

    assert asyncio.run(scenario()) == size
    assert most <= size


@in_loop
async def test_a_pool_without_actors_gets_one_batch_to_wake_it():
    assert Gate(fused(replicas=0), lambda: None).inside.free == 1


@in_loop
async def test_a_pool_that_grows_lets_in_who_waits():
    pool = fused(replicas=1)
    gate = Gate(pool, lambda: None)
    await gate.inside.enter((0.0, ""))
    waiting = asyncio.create_task(gate.inside.enter((1.0, "")))
    await asyncio.sleep(0)
    pool.replicas = 2
    gate.inside.look()
    await waiting


@in_loop
async def test_a_pool_rests_after_a_loss():
    freed: list[int] = []
    gate = Gate(fused(), lambda: freed.append(1))
    gate.lost()
    assert gate.inside.free == 0
    await until(lambda: freed)
    assert gate.inside.free == 1
