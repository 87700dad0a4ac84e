"""How many clips share a batch."""

import pytest

from rayreel.requests.costs import CostBook, Item
from rayreel.requests.shapes import shape_of
from rayreel.runs.needs import FUSED
from rayreel.runs.planning.batch_sizes import candidates, choose_batch, device_bytes
from tests.pipelines.small import small_resolved
from tests.runs.planning.conftest import EIGHT, LABEL, seen, spec

GIB = 2**30


def chosen(shapes, book=None, *, memory=80 * GIB, base=10 * GIB, each=8 * GIB):
    """For weights of ``base``, and ``each`` clip."""
    return choose_batch(
        shapes[0][0],
        need=lambda size: base + size * each,
        memory=memory,
        book=book or CostBook(),
        devices=EIGHT.labels,
    )


def measured(shape, **seconds: float) -> CostBook:
    """Seconds of stage 1 by batch size; stage 2 always takes one."""
    sizes = {int(name[1:]): value for name, value in seconds.items()}
    first = [seen(Item.clip("stage1", shape), s, batch=b) for b, s in sizes.items()]
    return CostBook.of([*first, *(seen(Item.clip("stage2", shape), 1.0, batch=b) for b in sizes)])


def test_candidates_are_powers_of_two():
    assert candidates() == [1, 2, 4, 8]
    assert candidates(5) == [1, 2, 4]


def test_the_largest_that_fits_into_nine_tenths_is_taken(shapes):
    assert chosen(shapes).size == 4
    assert chosen(shapes, memory=83 * GIB, each=8.08 * GIB).size == 8
    assert chosen(shapes, memory=82 * GIB, each=8.08 * GIB).size == 4


def test_the_reason_says_what_was_too_much(shapes):
    assert chosen(shapes).reason == (
        "the largest that fits: 4 take 42 GiB, 8 would take 74 GiB of 72 GiB"
    )


def test_one_clip_that_does_not_fit_is_told(shapes):
    choice = chosen(shapes, memory=16 * GIB)
    assert (choice.size, choice.fits) == (1, False)
    assert choice.reason == "even one takes 18 GiB, of 14.4 GiB that may be used"


def test_the_fastest_measured_size_wins_over_the_largest(shapes):
    choice = chosen(shapes, measured(shapes[0][0], b1=5.0, b2=3.0, b4=3.5))
    assert choice.size == 2
    assert choice.reason == "the fastest measured per clip (1: 6 s, 2: 4 s, 4: 4.5 s)"


def test_a_fast_size_that_does_not_fit_any_more_is_left(shapes):
    book = measured(shapes[0][0], b1=5.0, b2=3.0, b8=1.0)
    assert chosen(shapes, book, memory=40 * GIB).size == 2


def test_a_single_measured_size_says_too_little(shapes):
    assert chosen(shapes, measured(shapes[0][0], b1=5.0)).size == 4


def test_long_clips_are_made_one_by_one(files):
    request = small_resolved(
        files, pipeline="one_stage", num_frames=49, chain={"chunk_frames": 25, "overlap": 1}
    )
    assert chosen([(shape_of(request, files), 1)]).size == 1


@pytest.mark.parametrize("pipeline", ["one_stage", "two_stage"])
def test_larger_batches_need_more_for_denoising_alone(files, pipeline):
    shape = shape_of(small_resolved(files, pipeline=pipeline), files)
    one, eight = (device_bytes(spec(), files, shape, EIGHT.devices, batch) for batch in (1, 8))
    assert set(one) == {"text", *shape.work, FUSED}
    assert eight["stage1"] > one["stage1"]
    assert eight["decode"] == one["decode"]
    assert one[FUSED] >= max(one[stage] for stage in shape.work)


def test_labels_are_those_of_the_cluster():
    assert set(EIGHT.labels.values()) == {LABEL}
