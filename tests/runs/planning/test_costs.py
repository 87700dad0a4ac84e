"""What is known of costs, how it is kept, and what it tells of others."""

from datetime import UTC, datetime

import pytest

from rayreel.data.ledger import LedgerEntry
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.requests.costs import CostBook, Item, device_label, observe
from rayreel.runs.planning.make import unmeasured
from tests.runs.planning.conftest import EIGHT, GPU, LABEL, book_of, seen

BIG, SMALL = (
    Item(stage="stage1", shape=name, kind="video", work=work)
    for name, work in (("big", 400.0), ("small", 100.0))
)


def test_the_median_of_measurements_counts():
    book = CostBook.of([seen(SMALL, seconds) for seconds in (2.0, 90.0, 3.0)])
    (cost,) = book.stages
    assert (cost.seconds, cost.samples) == (3.0, 3)


def test_the_same_batch_size_counts_more_than_the_nearest_one():
    book = CostBook.of([seen(SMALL, 5.0, batch=1), seen(SMALL, 3.0, batch=4)])
    found = {batch: book.cost(SMALL, LABEL, batch) for batch in (1, 2, 4, 8)}
    assert [cost.seconds for cost in found.values()] == [5, 5, 3, 3]
    assert {cost.basis for cost in found.values()} == {"measured"}


def test_unknown_shapes_are_scaled_by_their_work_from_the_nearest_one():
    tiny = Item(stage="stage1", shape="tiny", kind="video", work=1.0)
    book = CostBook.of([seen(SMALL, 5.0), seen(tiny, 0.5)])
    cost = book.cost(BIG, LABEL, 1)
    assert (cost.seconds, cost.basis) == (20.0, "scaled")


@pytest.mark.parametrize(
    ("device", "item"),
    [
        ("cpu float32", SMALL),
        (LABEL, Item(stage="decode", shape="small", kind="video", work=100.0)),
        (LABEL, Item(stage="stage1", shape="still", kind="image", work=100.0)),
    ],
)
def test_other_devices_stages_and_kinds_tell_nothing(device, item):
    cost = CostBook.of([seen(SMALL, 5.0)]).cost(item, device, 1)
    assert (cost.seconds, cost.basis) == (None, "unknown")


def test_texts_that_are_written_first_have_a_cost_of_their_own():
    book = CostBook.of([seen(Item.text(written=True), 9.0)])
    assert book.cost(Item.text(), LABEL, 1).basis == "unknown"
    assert book.cost(Item.text(written=True), LABEL, 1).seconds == 9


def test_merged_books_count_by_their_samples_and_keep_the_rest():
    one = CostBook.of([seen(SMALL, 4.0)] * 3, [("small", 300)], {"text": 5.0})
    other = CostBook.of([seen(SMALL, 8.0), seen(BIG, 9.0)], [("small", 100), ("big", 1)])
    book = one.merged(other)
    stages = {cost.shape: (cost.seconds, cost.samples) for cost in book.stages}
    assert stages == {"big": (9, 1), "small": (5, 4)}
    assert [(c.shape, c.num_bytes) for c in book.files] == [("big", 1), ("small", 200)]
    assert book.starts == {"text": 5}


def test_a_book_is_read_back_as_it_was_saved(tmp_path):
    storage = Storage(tmp_path)
    assert CostBook.load(storage) == CostBook()
    book = CostBook.of([seen(SMALL, 4.0), seen(BIG, 9.0, batch=2)], [("small", 300)], {"text": 5.0})
    book.save(storage)
    assert CostBook.load(storage) == book


def test_a_damaged_book_is_refused(tmp_path):
    (tmp_path / "costs.json").write_text('{"stages": 3}')
    with pytest.raises(SpecError, match="is not a list of costs"):
        CostBook.load(Storage(tmp_path))


def entry(**seconds: float) -> LedgerEntry:
    return LedgerEntry(
        item_id="a", status="done", attempt=1, seconds=seconds, output="videos/a.mp4", sha256="0",
        num_bytes=7, worker="w", finished_at=datetime.now(UTC),
    )  # fmt: skip


def test_a_finished_clip_tells_of_the_stages_that_it_needs_alone(shapes):
    shape = next(shape for shape, _ in shapes if shape.request.pipeline == "one_stage")
    done = entry(text=9.0, stage1=4.0, stage2=0.001, decode=2.0)
    found = {
        one.item.stage: (one.seconds, one.batch) for one in observe(done, shape, EIGHT.labels, 8)
    }
    assert found == {"stage1": (4.0, 8), "decode": (2.0, 1)}


def test_the_most_frequent_unmeasured_shapes_are_worth_a_clip(shapes):
    names = [shape.name for shape, _ in shapes]
    assert [shape.name for shape in unmeasured(CostBook(), shapes, EIGHT.labels)] == names
    book = book_of(shapes[:1], stage1=20, stage2=8, decode=4)
    assert [shape.name for shape in unmeasured(book, shapes, EIGHT.labels)] == names[1:]
    assert unmeasured(book, shapes, EIGHT.labels, most=1) == []


def test_a_rare_shape_is_measured_where_nothing_else_goes_through_a_stage(shapes):
    by_pipeline = {shape.request.pipeline: shape for shape, _ in shapes}
    order = [(by_pipeline["one_stage"], 1000), (by_pipeline["two_stage"], 1)]
    found = unmeasured(CostBook(), order, EIGHT.labels, most=1)
    assert [shape.request.pipeline for shape in found] == ["one_stage", "two_stage"]


def test_labels_name_accelerator_and_dtype():
    assert device_label(GPU, "H100") == LABEL
