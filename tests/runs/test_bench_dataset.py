"""Benchmarks of the encode job: orders of work by simulation, and batches of captions."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayreel.config.load import parse
from rayreel.runs.bench import BenchSpec, run
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.sharding import interleaved, lower_bound, queued
from rayreel.runs.bench.spec import TextBatchesCase
from rayreel.runs.bench.text_batches import captions
from rayreel.runs.planning.order import longest_first

SHARDING = {"type": "sharding", "clips": 1000, "workers": 8, "alpha": 1.2, "corpora": 5}
TEXTS = {"type": "text_batches", "texts": 8, "batch": 4, "shortest": 4, "longest": 40}
COSTS = st.lists(st.floats(0.1, 100), min_size=1, max_size=30)


def lines_of(case) -> Iterator[list[Line]]:
    return run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))


def test_a_fixed_share_is_every_so_manieth_clip():
    assert interleaved([5, 1, 1, 1, 4], workers=2) == 5 + 1 + 4


def test_a_free_worker_takes_the_next_batch():
    assert queued([5, 3, 2, 2], workers=2, waiting=0) == 7
    assert queued([1, 1, 1], workers=5, waiting=0) == 1


def test_a_batch_that_waits_at_a_worker_is_not_given_away():
    assert queued([5, 3, 2], workers=2, waiting=0) == 5
    assert queued([5, 3, 2], workers=2, waiting=1) == 5 + 2


@given(costs=COSTS, workers=st.integers(1, 6), waiting=st.integers(0, 2))
def test_no_order_beats_the_bound(costs, workers, waiting):
    bound = lower_bound(costs, workers=workers) * (1 - 1e-9)
    assert queued(costs, workers=workers, waiting=waiting) >= bound
    assert interleaved(costs, workers=workers) >= bound


@given(costs=COSTS, most=st.integers(1, 5), workers=st.integers(1, 6))
def test_batches_hold_each_clip_once_and_the_longest_come_first(costs, most, workers):
    batches = longest_first(costs, most=most, workers=workers)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(costs)))
    assert [costs[index] for index in order] == sorted(costs, reverse=True)
    assert max(map(len, batches)) <= most


def test_the_longer_clips_are_the_fewer_share_a_batch():
    assert longest_first([1, 90, 1, 1, 80, 1], most=4, workers=2) == [[1], [4], [0, 2], [3, 5]]


def test_a_queue_is_faster_than_fixed_shares_for_few_long_clips():
    ((line,),) = lines_of(SHARDING)
    assert line.items() >= SHARDING.items()
    assert line["speed_up"] > 1.3
    assert line["speed_up"] > line["worst_speed_up"] > 1
    assert 1 >= line["share_of_bound"] > 0.95 > line["baseline_share_of_bound"]


def test_sharding_is_the_same_whenever_it_is_simulated():
    first, second = (next(lines_of(SHARDING))[0] for _ in range(2))
    assert first["speed_up"] == second["speed_up"]


def test_captions_are_encoded_in_batches_of_like_length():
    (lines,) = lines_of(TEXTS)
    assert [line["baseline"] for line in lines] == ["one at a time", "batches in any order"]
    for line in lines:
        assert line.items() >= TEXTS.items()
        assert line["speed_up"] == pytest.approx(line["baseline_seconds"] / line["seconds"], 0.01)


def test_captions_of_a_benchmark_have_mixed_lengths():
    case = parse({**TEXTS, "texts": 200}, TextBatchesCase, where="test")
    lengths = [len(text) for text in captions(case)]
    assert 4 <= min(lengths) < 6
    assert 36 < max(lengths) <= 40
    assert sorted(lengths)[100] < 16
