"""Actors per stage: what fits, what is fastest, and which placement is taken."""

import itertools

import pytest

from rayreel.runs.planning.replicas import (
    Load,
    Room,
    allocation,
    choose_placement,
    fits,
    makespan,
    pool_replicas,
    split_replicas,
)

EIGHT = Room(cpus=64, gpus=8, nodes=((32, 4), (32, 4)))
MANY_CPUS = Room(cpus=1000, gpus=0, nodes=((1000, 0),))


def gpu_loads(*seconds: float, **fields) -> list[Load]:
    names = ("stage1", "stage2", "decode")
    pairs = zip(names, seconds, strict=False)
    return [Load(name=n, seconds=s, cpus=1, gpus=1, **fields) for n, s in pairs]


def split(loads, room):
    return split_replicas(loads, room)


def pool(load, room, enough=None):
    return pool_replicas(load, room, enough)


def brute_force(loads, room) -> float:
    """The best throughput of all allocations that fit."""
    counts = itertools.product(range(1, 9), repeat=len(loads))
    named = ({load.name: n for load, n in zip(loads, c, strict=True)} for c in counts)
    return max(allocation(loads, r).throughput for r in named if fits(loads, r, room))


def counts(found) -> list[int]:
    return list(found.replicas.values())


@pytest.mark.parametrize(
    "seconds", [(10, 10, 10), (20, 8, 4), (1, 1, 30), (9, 0.1, 3), (7, 5), (3.3, 3.3, 1.1)]
)
@pytest.mark.parametrize("gpus", [3, 5, 8])
def test_no_allocation_that_fits_is_faster(seconds, gpus):
    loads, room = gpu_loads(*seconds), Room(cpus=64, gpus=gpus, nodes=((64, gpus),))
    found = split(loads, room)
    assert found.throughput == pytest.approx(brute_force(loads, room))


@pytest.mark.parametrize("seconds", [(10, 10, 10), (20, 8, 4), (9, 0.1, 3), (3.3, 3.3, 1.1)])
def test_one_actor_less_in_any_stage_is_slower_or_the_least(seconds):
    loads = gpu_loads(*seconds)
    found = split(loads, EIGHT)
    for name, count in found.replicas.items():
        fewer = {**found.replicas, name: count - 1}
        assert count == 1 or allocation(loads, fewer).throughput < found.throughput - 1e-9


def test_actors_that_would_not_help_are_given_back():
    assert counts(split(gpu_loads(4, 4, 4), EIGHT)) == [2, 2, 2]


def test_a_limit_holds_the_stages_around_it_back():
    loads = [*gpu_loads(4, most=2), Load(name="decode", seconds=1, cpus=1, gpus=0)]
    assert split(loads, EIGHT).replicas == {"stage1": 2, "decode": 1}


def test_the_least_of_the_spec_is_kept():
    assert counts(split(gpu_loads(4, 1, 1, least=2), EIGHT)) == [4, 2, 2]


def test_what_does_not_fit_at_all_is_none():
    room = Room(cpus=64, gpus=2, nodes=((64, 2),))
    assert split(gpu_loads(1, 1, 1), room) is None
    assert pool(Load(name="fused", seconds=1, cpus=65, gpus=0), room) is None


def test_an_actor_needs_one_node_for_all_of_it():
    load = Load(name="stage1", seconds=1, cpus=20, gpus=1)
    assert pool(load, EIGHT).replicas == {"stage1": 2}


def test_stages_on_the_cpu_leave_the_nodes_with_gpus_alone():
    room = Room(cpus=36, gpus=4, nodes=((4, 4), (32, 0)))
    loads = [*gpu_loads(4), Load(name="decode", seconds=4, cpus=8, gpus=0)]
    assert split(loads, room).replicas == {"stage1": 4, "decode": 4}


def test_actors_never_share_two_gpus():
    load = Load(name="decode", seconds=1, cpus=1, gpus=0.6)
    assert pool(load, EIGHT).replicas == {"decode": 8}
    half = Load(name="decode", seconds=1, cpus=1, gpus=0.5)
    assert pool(half, EIGHT).replicas == {"decode": 16}


def test_memory_of_the_hosts_limits_actors_on_the_cpu():
    room = Room(cpus=64, gpus=0, nodes=((32, 0), (32, 0)), host_bytes=100)
    load = Load(name="fused", seconds=1, cpus=1, gpus=0, host_bytes=40)
    assert pool(load, room).replicas == {"fused": 4}


def test_a_pool_grows_no_further_than_there_is_work():
    load = Load(name="text", seconds=1, cpus=1, gpus=1)
    assert pool(load, EIGHT, enough=3).replicas == {"text": 3}


def test_a_thousand_actors_are_planned_at_once():
    loads = [Load(name=n, seconds=s, cpus=1, gpus=0) for n, s in (("a", 3.0), ("b", 0.7))]
    found = split(loads, MANY_CPUS)
    assert 990 <= sum(counts(found)) <= 1000
    assert found.throughput == pytest.approx(1000 / 3.7, rel=0.01)


def test_the_bottleneck_works_all_the_time_and_others_wait():
    found = split(gpu_loads(20, 8, 4), EIGHT)
    assert found.utilisation[found.bottleneck] == 1
    assert min(found.utilisation.values()) == pytest.approx(found.throughput * 4)


def test_fused_is_preferred_where_it_is_about_as_fast():
    loads = gpu_loads(4, 2, 2)
    parts = split(loads, EIGHT)
    fused = pool(Load(name="fused", seconds=8, cpus=1, gpus=1), EIGHT)
    placement, reason = choose_placement({"split": parts, "fused": fused}, {})
    assert placement == "fused"
    assert reason == "fused: 8 actors give 1 clips/s, split: 4 + 2 + 2 actors give 1 clips/s"


def test_split_wins_where_decoding_needs_no_gpu():
    loads = [*gpu_loads(4, 2), Load(name="decode", seconds=4, cpus=4, gpus=0)]
    parts = split(loads, EIGHT)
    fused = pool(Load(name="fused", seconds=10, cpus=1, gpus=1), EIGHT)
    placement, reason = choose_placement({"split": parts, "fused": fused}, {})
    assert placement == "split"
    assert reason.startswith("split: 5 + 3 + 5 actors give 1.25 clips/s, fused: 8 actors give 0.8")


def test_what_does_not_fit_into_the_device_is_out():
    parts = split(gpu_loads(4, 2, 2), EIGHT)
    fused = pool(Load(name="fused", seconds=8, cpus=1, gpus=1), EIGHT)
    placement, reason = choose_placement(
        {"split": parts, "fused": fused}, {"fused": "needs 90 GiB of 80 GiB"}
    )
    assert placement == "split"
    assert reason.endswith("fused is out: needs 90 GiB of 80 GiB")


def test_few_clips_wait_for_the_whole_line():
    loads = gpu_loads(4, 2, 1)
    assert makespan(loads, {"stage1": 2, "stage2": 1, "decode": 1}, clips=1, batch=1) == 7
