"""What is planned, against a simulation of actors and queues."""

import itertools

import pytest

from rayreel.runs.planning.order import interleaved
from rayreel.runs.planning.replicas import (
    Load,
    Room,
    fits,
    makespan,
    pool_replicas,
    split_replicas,
)
from tests.runs.planning.simulation import simulate, steady, varying

NAMES = ("stage1", "stage2", "decode")
# Seconds of the stages, and GPUs.
CASES = [
    ((20, 8, 4), 8),
    ((10, 10, 10), 8),
    ((10, 10, 10), 3),
    ((9, 0.1, 3), 5),
    ((3.3, 3.3, 1.1), 6),
    ((1, 1, 30), 8),
    ((30, 11, 5), 16),
]
TWO_STAGES = {"stage1": 1.0, "stage2": 3.0, "decode": 1.0}
ONE_STAGE = {"stage1": 4.0, "stage2": 0.0, "decode": 1.0}


def loads_of(seconds) -> list[Load]:
    return [Load(name=n, seconds=s, cpus=1, gpus=1) for n, s in zip(NAMES, seconds, strict=True)]


def planned(seconds, gpus):
    loads, room = loads_of(seconds), Room(cpus=64, gpus=gpus, nodes=((64, gpus),))
    return loads, split_replicas(loads, room), room


def mean(clips) -> list[float]:
    return [sum(clip[name] for clip in clips) / len(clips) for name in NAMES]


@pytest.mark.parametrize(("seconds", "gpus"), CASES)
def test_steady_stages_reach_the_planned_throughput(seconds, gpus):
    loads, plan, _ = planned(seconds, gpus)
    clips = [dict(zip(NAMES, seconds, strict=True))] * 1000
    assert simulate(clips, loads, plan.replicas).throughput == pytest.approx(
        plan.throughput, rel=0.01
    )


@pytest.mark.parametrize(("seconds", "gpus"), CASES)
@pytest.mark.parametrize(("deviation", "tolerance"), [(0.1, 0.02), (0.3, 0.07)])
def test_varying_stages_come_close_to_it(seconds, gpus, deviation, tolerance):
    loads, plan, _ = planned(seconds, gpus)
    clips = [dict(zip(NAMES, seconds, strict=True))] * 1000
    found = simulate(clips, loads, plan.replicas, varying(1, deviation))
    assert found.throughput == pytest.approx(plan.throughput, rel=tolerance)


@pytest.mark.parametrize(("seconds", "gpus"), [case for case in CASES if case[1] <= 8])
def test_no_other_allocation_does_much_better(seconds, gpus):
    loads, plan, room = planned(seconds, gpus)
    clips = [dict(zip(NAMES, seconds, strict=True))] * 200
    counts = itertools.product(range(1, gpus - 1), repeat=3)
    named = (dict(zip(NAMES, c, strict=True)) for c in counts)
    rates = [
        simulate(clips, loads, replicas, varying(1)).throughput
        for replicas in named
        if fits(loads, replicas, room)
    ]
    assert max(rates) < 1.06 * simulate(clips, loads, plan.replicas, varying(1)).throughput


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("draw", [steady, varying(1, 0.2)])
def test_clips_that_skip_a_stage_count_with_their_share(share, draw):
    count = round(1000 * share)
    groups = [[ONE_STAGE] * count, [TWO_STAGES] * (1000 - count)]
    clips = list(interleaved(groups))
    loads, plan, _ = planned(mean(clips), 8)
    found = simulate(clips, loads, plan.replicas, draw)
    assert found.throughput == pytest.approx(plan.throughput, rel=0.1)


def test_runs_of_one_shape_are_far_slower_than_mixed_ones():
    groups = [[ONE_STAGE] * 500, [TWO_STAGES] * 500]
    clips = list(interleaved(groups))
    loads, plan, _ = planned(mean(clips), 8)
    mixed = simulate(clips, loads, plan.replicas).seconds
    in_runs = simulate([*groups[0], *groups[1]], loads, plan.replicas).seconds
    assert in_runs > 1.5 * mixed


@pytest.mark.parametrize("clips", [1, 2, 7, 40, 2000])
@pytest.mark.parametrize(("seconds", "gpus"), CASES)
def test_the_time_of_short_and_of_long_runs_is_told(seconds, gpus, clips):
    loads, plan, _ = planned(seconds, gpus)
    items = [dict(zip(NAMES, seconds, strict=True))] * clips
    took = simulate(items, loads, plan.replicas).seconds
    assert makespan(loads, plan.replicas, clips=clips) == pytest.approx(took, rel=0.01)


@pytest.mark.parametrize("draw", [steady, varying(1)])
def test_fused_actors_make_one_clip_each_at_a_time(draw):
    load = Load(name="fused", seconds=32, cpus=1, gpus=1)
    plan = pool_replicas(load, Room(cpus=64, gpus=8, nodes=((64, 8),)))
    assert plan
    found = simulate([{"fused": 32.0}] * 1000, [load], plan.replicas, draw)
    assert found.throughput == pytest.approx(plan.throughput, rel=0.05)


def test_mixing_spreads_groups_and_keeps_their_order():
    assert "".join(interleaved(["abcdef", "12"])) == "ab1cde2f"
    assert list(interleaved([])) == []
