"""Clips that share calls are the same ones whatever is finished, and whatever has failed."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rayreel.data.samples import Mask, Medium
from rayreel.runs.encoding.groups import Keyed, batches, cost, grouped, shape_name
from rayreel.stages.latents import LatentItem
from tests.pipelines.media import picture, sound


def keyed(name: str, bucket: str = "96x64x9", duration_s: float | None = 1.0) -> Keyed:
    """A clip and its sound, if it has one."""
    media: list[Medium] = [picture(Path(name), bucket=bucket)]
    media += [] if duration_s is None else [sound(Path(name), duration_s=duration_s)]
    return tuple((f"{name}{place}", medium) for place, medium in enumerate(media))


KINDS = (("96x64x9", 1.0), ("96x64x9", None), ("64x64x9", 1.0))
lists = st.lists(st.sampled_from(KINDS), max_size=20).map(
    lambda kinds: [keyed(f"{number}-", *kind) for number, kind in enumerate(kinds)]
)


def keys_of(media) -> set[str]:
    return {key for one in media for key, _ in one}


@settings(max_examples=50, deadline=None)
@given(lists, st.sampled_from([None, 1, 3]), st.data())
def test_groups_are_the_same_whatever_is_missing(media, size, data):
    everything = {one.item_id: one for one in grouped(media, keys_of(media), size)}
    missing = data.draw(st.sets(st.sampled_from(sorted(keys_of(media))))) if media else set()
    left = grouped(media, missing, size)
    assert {key for one in left for key in one.missing} == missing
    for one in left:
        whole = everything[one.item_id]
        assert (one.group, one.group_size, one.media) == (
            whole.group,
            whole.group_size,
            whole.media,
        )
        assert one.missing


@settings(max_examples=50, deadline=None)
@given(lists, st.sampled_from([1, 3]))
def test_groups_are_of_one_shape_and_as_large_as_asked_for(media, size):
    groups: dict[str, list[LatentItem]] = {}
    for one in grouped(media, keys_of(media), size):
        groups.setdefault(one.group, []).append(one)
    for members in groups.values():
        assert len({shape_name(one.media) for one in members}) == 1
        assert {one.group_size for one in members} == {len(members)}
        assert len(members) <= size
    shapes = {shape_name(one) for one in media}
    assert len(groups) == sum(-(-[shape_name(m) for m in media].count(s) // size) for s in shapes)


def test_what_several_clips_share_is_encoded_once():
    first, again = keyed("a"), keyed("a")
    other = (*keyed("b", duration_s=None), first[1])
    items = grouped([first, again, other], keys_of([first, other]), None)
    assert [one.media for one in items] == [first, other[:1]]


def test_a_group_has_as_many_pixels_as_fit_and_never_more_than_eight():
    many = [keyed(f"{number}", "96x64x9") for number in range(20)]
    assert [one.group_size for one in grouped(many, keys_of(many), None)] == [8] * 16 + [4] * 4
    large = [keyed(f"{number}", "512x320x89", None) for number in range(5)]
    assert [one.group_size for one in grouped(large, keys_of(large), None)] == [2, 2, 2, 2, 1]
    huge = [keyed(f"{number}", "1920x1088x121", None) for number in range(2)]
    assert [one.group_size for one in grouped(huge, keys_of(huge), None)] == [1, 1]


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(1, 4))
def test_batches_are_whole_groups_and_hold_every_item_once(media, workers):
    items = grouped(media, keys_of(media), 3)
    found = batches(items, workers)
    assert sorted(one.item_id for batch in found for one in batch) == sorted(
        one.item_id for one in items
    )
    places = [(one.group, number) for number, batch in enumerate(found) for one in batch]
    assert len(set(places)) == len({one.group for one in items})


def test_the_most_work_goes_out_first():
    media = [keyed("s", "64x64x9", None), keyed("l", "96x96x17", None), keyed("m", "96x64x9", None)]
    found = batches(grouped(media, keys_of(media), None), workers=2)
    assert [batch[0].media for batch in found] == [media[1], media[2], media[0]]


def test_masks_cost_little_and_a_sound_about_as_much_as_a_small_picture():
    clip, track = picture(Path("a")), sound(Path("a"))
    alone = cost((("a", clip),))
    assert alone == 96 * 64 * 9
    assert cost((("m", Mask(source="m", content="m", of=clip)),)) < alone / 5
    assert alone / 2 < cost((("s", track),)) < alone * 2
