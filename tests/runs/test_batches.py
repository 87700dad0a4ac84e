"""Who shares a batch, and who goes first."""

from rayreel.runs.batches import like_batches
from rayreel.stages.base import RenderItem
from tests.pipelines.small import small


def items(name: str, count: int, **fields) -> list[RenderItem]:
    request = small(seed=1, **fields)
    return [RenderItem(item_id=f"{name}{n}", request=request) for n in range(count)]


def names(batches) -> list[str]:
    return [" ".join(item.item_id for item in batch) for batch in batches]


def test_only_like_items_share_a_batch():
    batches = like_batches([*items("a", 3), *items("b", 2, num_frames=17)], lambda _: 8)
    assert names(batches) == ["a0 a1 a2", "b0 b1"]


def test_kinds_are_mixed_so_that_long_clips_do_not_hold_up_short_ones():
    long, short = items("long", 4, num_frames=17), items("s", 2)
    assert names(like_batches([*long, *short], lambda _: 1)) == [
        *("long0", "s0", "long1", "long2", "s1", "long3")
    ]


def test_a_batch_has_the_size_of_its_shape():
    batches = like_batches(
        [*items("a", 4), *items("b", 4, num_frames=17)], lambda request: 33 // request.num_frames
    )
    assert names(batches) == ["b0", "a0 a1 a2", "b1", "b2", "a3", "b3"]


def test_few_items_are_shared_out_among_the_workers():
    assert names(like_batches(items("a", 4), lambda _: 8, workers=3)) == ["a0 a1", "a2 a3"]


def test_long_clips_in_chunks_go_alone():
    chained = items("a", 2, num_frames=33, chain={"chunk_frames": 17})
    assert names(like_batches(chained, lambda _: 8)) == ["a0", "a1"]
