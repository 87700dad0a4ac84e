"""The latents pass: groups of media into the store, read ahead, the same bits whatever happens."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rayreel.config.jobs import MemorySpec
from rayreel.data.samples import Mask, Medium
from rayreel.data.storage import Storage
from rayreel.data.store import FOLDER, RecordStore
from rayreel.errors import StorageError
from rayreel.pipelines import encoding
from rayreel.pipelines.devices import Device
from rayreel.stages import latents, life
from rayreel.stages.base import ItemFailure, run_stage
from rayreel.stages.latents import LatentItem, LatentStage
from tests.pipelines.media import grey_clip, picture, sound, tone
from tests.pipelines.small import DEVICE


def stage_in(folder: Path | str, device: Device = DEVICE, *, tiled: bool = False) -> LatentStage:
    stage = LatentStage("tiny", device, MemorySpec(), str(folder), tiled)
    stage.setup()
    return stage


def items_of(
    stage: LatentStage, media: Sequence[Sequence[Medium]], *, group: str = "g", missing: Any = None
) -> list[LatentItem]:
    """A group, of which everything is missing unless told otherwise."""
    keyed = [tuple((stage._latents.key(m), m) for m in one) for one in media]
    return [
        LatentItem(
            item_id=f"{group}{number}",
            media=one,
            group=group,
            group_size=len(keyed),
            missing=frozenset(key for key, m in one if missing is None or m in missing),
        )
        for number, one in enumerate(keyed)
    ]


@pytest.fixture
def media(tmp_path) -> list[tuple[Medium, ...]]:
    """Four clips of one size, each with a sound of its own rate."""
    found: list[tuple[Medium, ...]] = []
    for number, rate in enumerate((16000, 44100, 16000, 8000)):
        clip = grey_clip(tmp_path / f"{number}.mkv", num_frames=9 + number)
        track = tone(tmp_path / f"{number}.wav", rate=rate)
        found.append((picture(clip, start=number), sound(track, duration_s=9 / 24)))
    return found


def parts(folder: Path) -> int:
    return len(list((folder / FOLDER).glob("*"))) if (folder / FOLDER).is_dir() else 0


def stored(stage: LatentStage, *media: Medium):
    return [stage._latents.get(stage._latents.key(medium)) for medium in media]


def same_bits(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_a_group_misses_is_one_part_of_the_store(media, tmp_path):
    stage = stage_in(tmp_path)
    items = [*items_of(stage, media[:2], group="a"), *items_of(stage, media[2:], group="b")]
    done = run_stage(stage, [items[0], items[2], items[1], items[3]])
    assert [one.item_id for one in done] == ["a0", "b0", "a1", "b1"]
    assert all(isinstance(one, LatentItem) for one in done)
    assert parts(tmp_path) == 2
    for clip, track in media:
        latent, wave = stored(stage, clip, track)
        assert (latent.shape, latent.dtype) == ((16, 2, 2, 3), torch.bfloat16)
        assert (wave.shape, wave.dtype) == ((2, 10, 16), torch.float32)


def test_what_is_not_missing_is_encoded_with_its_group_and_not_put(media, tmp_path):
    stage = stage_in(tmp_path)
    items = items_of(stage, media, missing={media[1][0], media[2][1]})
    stage(items)
    known = stage._latents.known([key for item in items for key, _ in item.media])
    assert known == {items[1].media[0][0], items[2].media[1][0]}
    stage(items_of(stage, media, group="again", missing=()))
    assert parts(tmp_path) == 1


@pytest.mark.parametrize("left", [[2], [0, 3]])
def test_a_part_of_a_group_gives_the_bits_of_the_whole(media, tmp_path, left):
    """Items whose worker was lost come one by one, and a run that goes on has fewer of them."""
    flat = [medium for index in left for medium in media[index]]
    whole, part = stage_in(tmp_path / "whole"), stage_in(tmp_path / "part")
    whole(items_of(whole, media))
    part([items_of(part, media)[index] for index in left])
    assert same_bits(stored(part, *flat), stored(whole, *flat))


@pytest.mark.parametrize("damage", ["missing", "short", "garbage"])
def test_media_that_cannot_be_read_cost_their_item_and_change_no_other(media, tmp_path, damage):
    whole, stage = stage_in(tmp_path / "whole"), stage_in(tmp_path / "store")
    whole(items_of(whole, media))
    path = Path(media[1][0].source)
    path.unlink()
    if damage == "short":
        grey_clip(path, num_frames=8)
    elif damage == "garbage":
        path.write_bytes(b"no video" * 100)
    done = run_stage(stage, items_of(stage, media))
    assert [isinstance(one, ItemFailure) for one in done] == [False, True, False, False]
    failure = done[1]
    assert isinstance(failure, ItemFailure)
    assert (failure.item_id, failure.stage, failure.error) == ("g1", "latents", "MediaError")
    assert str(path) in failure.message
    assert not failure.retryable
    assert stored(stage, *media[1]) == [None, None]
    others = [medium for index in (0, 2, 3) for medium in media[index]]
    assert same_bits(stored(stage, *others), stored(whole, *others))


def test_a_group_of_which_nothing_can_be_read_loads_no_network(media, tmp_path):
    stage = stage_in(tmp_path / "store", replace(DEVICE, reason="of this test alone"))
    for clip, _ in media:
        Path(clip.source).unlink()
    done = stage(items_of(stage, media))
    assert all(isinstance(one, ItemFailure) for one in done)
    assert stage.loads == ()
    assert parts(tmp_path / "store") == 0


def test_masks_are_put_at_the_size_of_what_they_belong_to(media, tmp_path):
    clip, track = media[0]
    frames = Path(clip.source)
    torch.save(torch.tensor([1.0, 0]), tmp_path / "m.pt")
    masks = (
        Mask(source=str(frames), content="m", of=clip),
        Mask(source=str(tmp_path / "m.pt"), content="m", of=track),
    )
    stage = stage_in(tmp_path)
    stage(items_of(stage, [(clip, track, *masks)]))
    of_picture, of_sound = stored(stage, *masks)
    assert of_picture.tolist() == 2 * [2 * [3 * [0]]]
    assert of_sound.tolist() == 5 * [1] + 5 * [0]


def test_notes_travel_with_the_item_and_lie_in_the_store(tmp_path):
    track = tone(tmp_path / "a.wav", seconds=0.5)
    stage, short = stage_in(tmp_path), sound(track)
    (done,) = stage(items_of(stage, [(short,)]))
    assert isinstance(done, LatentItem)
    note = "its sound lacks the last 0.5 s: silence"
    assert done.notes == (note,)
    (found,) = stage._latents.read([stage._latents.key(short)]).values()
    assert found.note == note


def test_sound_is_encoded_in_float32_whatever_pictures_are_encoded_in(media, tmp_path):
    exact, rounded = (
        stage_in(tmp_path / dtype, Device("cpu", dtype, "for tests"))
        for dtype in ("float32", "bfloat16")
    )
    for stage in (exact, rounded):
        stage(items_of(stage, media))
    assert set(rounded.loads) >= {"VideoEncoder", "AudioEncoder"}
    tracks, clips = ([one[index] for one in media] for index in (1, 0))
    assert same_bits(stored(rounded, *tracks), stored(exact, *tracks))
    for ours, expected in zip(stored(rounded, *clips), stored(exact, *clips), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.05)


def test_sources_may_lie_in_an_object_store(media, tmp_path):
    clip = media[0][0]
    remote = replace(clip, source="memory://clips/0.mkv")
    Storage("memory://clips").write_bytes("0.mkv", Path(clip.source).read_bytes())
    here, there = stage_in(tmp_path / "here"), stage_in(tmp_path / "there")
    here(items_of(here, [(clip,)]))
    (done,) = there(items_of(there, [(remote,)]))
    assert isinstance(done, LatentItem)
    assert same_bits(stored(there, remote), stored(here, clip))


def test_large_pictures_are_tiled_where_that_is_asked_for(tmp_path):
    clip = picture(grey_clip(tmp_path / "a.mkv", num_frames=1), bucket="640x64x1")
    whole, tiled = stage_in(tmp_path / "whole"), stage_in(tmp_path / "tiled", tiled=True)
    for stage in (whole, tiled):
        stage(items_of(stage, [(clip,)]))
    (one,), (other,) = stored(whole, clip), stored(tiled, clip)
    assert one.shape == other.shape
    assert not torch.equal(one, other)


def test_one_group_is_read_while_another_is_encoded_and_no_third(media, tmp_path, monkeypatch):
    stage, events, lock = stage_in(tmp_path), [], threading.Lock()
    read, encode = encoding.read_medium, encoding.encode_pictures

    def noted_read(path, medium, files):
        with lock:
            events.append(("read", medium.content))
        return read(path, medium, files)

    def noted_encode(*args, **options):
        with lock:
            events.append(("encode", ""))
        return encode(*args, **options)

    monkeypatch.setattr(latents, "read_medium", noted_read)
    monkeypatch.setattr(latents, "encode_pictures", noted_encode)
    stage(
        [item for n, one in enumerate(media) for item in items_of(stage, [one[:1]], group=f"{n}")]
    )
    encoded = [place for place, (what, _) in enumerate(events) if what == "encode"]
    begun = {content: place for place, (what, content) in enumerate(events) if what == "read"}
    assert len(encoded) == 4
    assert begun["2"] > encoded[0]
    assert begun["3"] > encoded[1]


def test_signs_of_life_are_given_as_media_are_read_and_encoded(media, tmp_path):
    stage, signs = stage_in(tmp_path), []
    life.listen(lambda _: signs.append(1))
    try:
        stage(items_of(stage, media))
    finally:
        life._listeners.clear()
    assert len(signs) >= len(media) + 3


def test_a_store_that_does_not_answer_stops_the_stage(media, tmp_path, monkeypatch):
    def unreachable(*_):
        raise StorageError("no answer")

    stage = stage_in(tmp_path)
    monkeypatch.setattr(RecordStore, "put", unreachable)
    with pytest.raises(StorageError, match="no answer"):
        stage(items_of(stage, media))


class ShortOfMemory:
    """Encoders that take so many pictures at most."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, ledger, pixels, *, tiled, fill):
        size = round(len(pixels) * fill)
        self.sizes.append(size)
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encoding.encode_pictures(ledger, pixels, tiled=tiled, fill=fill)


def test_a_group_that_does_not_fit_is_halved_as_are_those_like_it(media, tmp_path, monkeypatch):
    stage, short = stage_in(tmp_path), ShortOfMemory(2)
    monkeypatch.setattr(latents, "encode_pictures", short)
    groups = [*items_of(stage, media, group="a"), *items_of(stage, media[:3], group="b")]
    done = stage(groups)
    assert all(isinstance(one, LatentItem) and one.memory == "batch 2" for one in done)
    assert short.sizes == [4, 2, 2, 2, 2]
    assert all(latent is not None for one in media for latent in stored(stage, *one))
    assert parts(tmp_path) == 2


def test_a_part_of_a_group_is_filled_up_no_further_than_memory_lasts(media, tmp_path, monkeypatch):
    stage, short = stage_in(tmp_path), ShortOfMemory(1)
    monkeypatch.setattr(latents, "encode_pictures", short)
    (done,) = stage(items_of(stage, media)[1:2])
    assert isinstance(done, LatentItem)
    assert done.memory == "batch 1"
    assert short.sizes == [4, 2, 1]
