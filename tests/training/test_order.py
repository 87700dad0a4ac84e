"""Steps of epochs: each sample once, of one shape where that is possible, the same every time."""

import time
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayreel.training.order import Order, Position
from rayreel.training.shapes import SampleShape

SHAPES = [SampleShape(key=name, tokens=10 * place) for place, name in enumerate("abcd", start=1)]

shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=60)
batch_sizes = st.integers(1, 9)
seeds = st.integers(0, 2**40)


@given(shapes, batch_sizes, seeds, st.integers(0, 50))
def test_each_sample_is_in_one_step_of_an_epoch(shapes, batch_size, seed, epoch):
    order = Order(shapes, batch_size, seed)
    steps = order.epoch(epoch)
    assert sorted(sample for step in steps for sample in step) == list(range(len(shapes)))
    assert len(steps) == order.steps_per_epoch
    assert {len(step) for step in steps[:-1]} <= {batch_size}


@given(shapes, batch_sizes, seeds)
def test_as_many_steps_as_possible_are_of_one_shape(shapes, batch_size, seed):
    steps = Order(shapes, batch_size, seed).epoch(0)
    alike = [step for step in steps if len(step) == batch_size and _shapes(shapes, step) == 1]
    possible = sum(count // batch_size for count in Counter(shapes).values())
    assert len(alike) >= possible


@given(shapes, batch_sizes, seeds)
def test_a_mixed_step_has_no_more_shapes_than_it_needs(shapes, batch_size, seed):
    mixed = [step for step in Order(shapes, batch_size, seed).epoch(0) if _shapes(shapes, step) > 1]
    # What is left of a shape lies together, so it is cut by the end of a step at most.
    left = [count % batch_size for count in Counter(shapes).values()]
    pieces = sum(1 for count in left if count) + len(mixed)
    assert sum(_shapes(shapes, step) for step in mixed) <= pieces


def test_an_order_depends_on_seed_and_epoch_alone():
    shapes = SHAPES * 20
    order = Order(shapes, 4, seed=1)
    assert list(order.epoch(3)) == list(Order(list(shapes), 4, seed=1).epoch(3))
    orders = [order.epoch(3), order.epoch(4), Order(shapes, 4, seed=2).epoch(3)]
    assert len({tuple(steps) for steps in orders}) == 3


def test_an_order_stays_what_it_is():
    """Runs that were begun by another version of this code go on."""
    steps = Order([SHAPES[0]] * 6 + [SHAPES[1]] * 3, 2, seed=5).epoch(1)
    assert list(steps) == [(3, 0), (6, 8), (5, 4), (1, 2), (7,)]


@given(shapes, batch_sizes, st.integers(0, 40), st.integers(0, 3))
def test_going_on_from_a_position_gives_what_would_have_come(shapes, batch_size, done, epoch):
    order = Order(shapes, batch_size, seed=7)
    start = Position(epoch, 0)
    whole = list(islice(order.steps(start), done + 5))
    rest = list(islice(order.steps(order.after(start, done)), 5))
    assert rest == whole[done:]


def test_positions_tell_epoch_and_step():
    order = Order(SHAPES * 2, 3, seed=0)
    positions = [place for place, _ in islice(order.steps(Position()), 5)]
    assert positions == [
        Position(0, 0),
        Position(0, 1),
        Position(0, 2),
        Position(1, 0),
        Position(1, 1),
    ]


def test_a_position_that_no_epoch_has_is_refused():
    order = Order(SHAPES * 2, 4, seed=0)
    with pytest.raises(ValueError, match=r"step 2 .* from 0 to 1"):
        next(order.steps(Position(0, 2)))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        Order([], 1, seed=0)


def test_fewer_samples_than_a_step_has_are_one_short_step():
    order = Order(SHAPES[:2], 8, seed=0)
    assert [len(step) for _, step in islice(order.steps(Position()), 3)] == [2, 2, 2]


def test_a_million_samples_are_put_in_order_in_seconds():
    shapes = SHAPES * 250_000
    start = time.process_time()
    steps = Order(shapes, 16, seed=0).epoch(0)
    assert len(steps) == 62_500
    assert time.process_time() - start < 5


def _shapes(shapes, step) -> int:
    return len({shapes[sample].key for sample in step})
