"""Steps shared out to workers: each sample counts once, and workers wait little for each other."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rayreel.training.passes import passes
from rayreel.training.shapes import SampleShape

ONE = SampleShape(key="one", tokens=100)
OTHER = SampleShape(key="other", tokens=300)

shapes = st.lists(
    st.sampled_from([SampleShape(key=tokens, tokens=tokens) for tokens in (1, 7, 90, 100, 640)]),
    min_size=1,
    max_size=40,
)
worlds = st.integers(1, 9)
micro_batches = st.one_of(st.none(), st.integers(1, 6))


@given(shapes, worlds, micro_batches)
def test_each_sample_counts_once(shapes, world, micro_batch):
    shares = passes(range(len(shapes)), shapes, world, micro_batch)
    counted = [
        sample for share in shares for one in share if one.weight == 1 for sample in one.samples
    ]
    assert sorted(counted) == list(range(len(shapes)))
    assert {one.weight for share in shares for one in share} <= {0, 1}


@given(shapes, worlds, micro_batches)
def test_workers_have_equally_many_passes(shapes, world, micro_batch):
    shares = passes(range(len(shapes)), shapes, world, micro_batch)
    assert len(shares) == world
    assert len({len(share) for share in shares}) == 1


@given(shapes, worlds, micro_batches)
def test_a_pass_is_of_one_shape_and_no_larger_than_allowed(shapes, world, micro_batch):
    shares = passes(range(len(shapes)), shapes, world, micro_batch)
    for one in (one for share in shares for one in share):
        assert len({shapes[sample].key for sample in one.samples}) == 1
        assert 1 <= len(one.samples) <= (micro_batch or len(shapes))


@given(shapes, worlds, micro_batches)
def test_no_worker_has_more_tokens_than_another_by_more_than_one_pass(shapes, world, micro_batch):
    shares = passes(range(len(shapes)), shapes, world, micro_batch)
    tokens = [sum(_tokens(one, shapes) for one in share) for share in shares]
    longest = max(_tokens(one, shapes) for share in shares for one in share)
    assert max(tokens) - min(tokens) <= longest


@given(shapes, worlds, micro_batches)
def test_steps_take_no_longer_than_shape_after_shape(shapes, world, micro_batch):
    """Side by side, the longest pass is waited for."""
    shares = passes(range(len(shapes)), shapes, world, micro_batch)
    waited = sum(max(_tokens(one, shapes) for one in side) for side in zip(*shares, strict=True))
    alone = sum(math.ceil(count / world) * shape.tokens for shape, count in Counter(shapes).items())
    assert waited <= alone


@given(shapes, worlds, micro_batches)
def test_company_is_kept_in_one_round_at_most(shapes, world, micro_batch):
    shares = passes(range(len(shapes)), shapes, world, micro_batch)
    company = [one for share in shares for one in share if not one.weight]
    assert len(company) < world
    assert all(share[:-1] == [one for one in share[:-1] if one.weight] for share in shares)


def test_one_worker_takes_a_step_in_one_pass():
    (share,) = passes([3, 1, 2], [ONE] * 4, 1, None)
    assert [(one.samples, one.weight) for one in share] == [((3, 1, 2), 1)]


def test_accumulation_follows_from_what_fits_into_a_pass():
    (share,) = passes(range(8), [ONE] * 8, 1, 3)
    assert [len(one.samples) for one in share] == [3, 3, 2]


def test_samples_of_one_shape_are_shared_out_evenly():
    shares = passes(range(10), [ONE] * 10, 4, None)
    assert sorted(len(share[0].samples) for share in shares) == [2, 2, 3, 3]
    assert {len(share) for share in shares} == {1}


def test_a_worker_without_samples_repeats_the_cheapest_one_for_company():
    shares = passes([0, 1], [OTHER, ONE], 3, None)
    assert sorted((one.samples, one.weight) for (one,) in shares) == [
        ((0,), 1),
        ((1,), 0),
        ((1,), 1),
    ]


def test_long_samples_run_beside_long_ones():
    shares = passes(range(4), [OTHER, ONE, OTHER, ONE], 2, 1)
    sides = [{shares[worker][place].samples[0] for worker in range(2)} for place in range(2)]
    assert sides == [{0, 2}, {1, 3}]


def test_a_further_round_is_taken_where_it_saves_waiting():
    shapes = [ONE] * 7 + [SampleShape(key="as long", tokens=100)]
    shares = passes(range(8), shapes, 2, None)
    waited = [max(len(one.samples) for one in side) for side in zip(*shares, strict=True)]
    assert sum(waited) == 4


def _tokens(one, shapes) -> int:
    return sum(shapes[sample].tokens for sample in one.samples)
