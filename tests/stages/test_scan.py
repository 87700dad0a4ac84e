"""The scan pass: what files hold, each looked at by itself and kept as one part."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from rayreel.config.encode import SceneSpec
from rayreel.data.samples import Scan
from rayreel.data.storage import Storage
from rayreel.data.store import FOLDER, RecordStore
from rayreel.media.measures import MEASURES
from rayreel.stages.base import ItemFailure, run_stage
from rayreel.stages.scan import ScanItem, ScanStage, hash_file, scan_file, scan_key
from tests.media.samples import grey_levels, write_video
from tests.pipelines.media import grey_clip, tone

KEY: dict[str, Any] = {"source": "a.mp4", "token": "5 1.0", "whole": True, "scenes": None}


def scan(folder: Path, *sources: Path | str, whole: bool = True):
    stage = pickle.loads(pickle.dumps(ScanStage(str(folder / "store"))))
    stage.setup()
    items = [
        ScanItem(item_id=f"{n}", source=str(one), whole=whole) for n, one in enumerate(sources)
    ]
    return run_stage(stage, items)


def records(folder: Path) -> RecordStore:
    return RecordStore(Storage(folder / "store"))


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "b.mp4"},
        {"token": "6 1.0"},
        {"token": "5 1.5"},
        {"whole": False},
        {"scenes": SceneSpec()},
        {"scenes": SceneSpec(min_frames=3)},
    ],
)
def test_a_scan_is_of_a_file_as_it_was_and_of_how_it_is_cut(changed):
    one = KEY | {"scenes": SceneSpec(min_frames=4)} if changed.get("scenes") else KEY
    assert scan_key(**one) != scan_key(**(one | changed))


def test_how_videos_are_cut_is_no_matter_of_masks():
    mask = KEY | {"whole": False}
    assert scan_key(**mask) == scan_key(**(mask | {"scenes": SceneSpec()}))


def test_a_measure_that_is_new_is_another_scan(monkeypatch):
    before = scan_key(**KEY)
    monkeypatch.setitem(MEASURES, "loud", lambda _: 1.0)
    assert scan_key(**KEY) != before


def test_files_are_told_by_their_bytes(tmp_path):
    for name, data in (("a", b"x" * 2**21), ("b", b"x" * 2**21), ("c", b"x" * 2**21 + b"y")):
        (tmp_path / name).write_bytes(data)
    first, copy, other = (hash_file(tmp_path / name) for name in "abc")
    assert first == copy != other
    assert len(first) == 32


def test_a_scan_has_facts_and_all_measures_of_every_scene(tmp_path):
    clip = grey_clip(tmp_path / "a.mkv", num_frames=9)
    (done,) = scan(tmp_path, clip)
    found = done.scan
    assert (found.kind, found.width, found.height, found.num_frames) == ("video", 96, 64, 9)
    assert (found.fps, found.sound_s, found.content) == (24, None, hash_file(clip))
    (only,) = found.scenes
    assert (only.start, only.num_frames, set(only.measures)) == (0, 9, set(MEASURES))
    assert len(only.phash) == 64
    assert found == scan_file(clip, found.content, None)


def test_a_video_is_cut_where_the_spec_says(tmp_path):
    frames = grey_levels(40, 64, 96)
    frames[20:] = 255 - frames[20:]
    write_video(tmp_path / "cut.mkv", frames)
    scenes = scan_file(tmp_path / "cut.mkv", "c", SceneSpec()).scenes
    assert [(one.start, one.num_frames) for one in scenes] == [(0, 20), (20, 20)]
    first = scan_file(tmp_path / "cut.mkv", "c", SceneSpec(max_scenes=1)).scenes
    assert first == scenes[:1]
    assert len(scan_file(tmp_path / "cut.mkv", "c", None).scenes) == 1


def test_sound_has_no_frames(tmp_path):
    (done,) = scan(tmp_path, tone(tmp_path / "a.wav", seconds=1.0))
    assert (done.scan.kind, done.scan.sound_s, done.scan.num_frames) == ("audio", 1, 0)
    assert [(one.num_frames, one.phash) for one in done.scan.scenes] == [(0, "")]


def test_of_a_mask_only_the_bytes_are_looked_at(tmp_path):
    (tmp_path / "mask.bin").write_bytes(b"no picture")
    (done,) = scan(tmp_path, tmp_path / "mask.bin", whole=False)
    assert done.scan == Scan(content=hash_file(tmp_path / "mask.bin"), kind="file")


def test_a_file_that_cannot_be_read_costs_itself_alone(tmp_path):
    (tmp_path / "broken.mkv").write_bytes(b"nothing")
    good = grey_clip(tmp_path / "a.mkv")
    missing, broken, done = scan(tmp_path, tmp_path / "none.mkv", tmp_path / "broken.mkv", good)
    assert isinstance(missing, ItemFailure)
    assert isinstance(broken, ItemFailure)
    assert (broken.stage, broken.error, broken.retryable) == ("scan", "MediaError", False)
    assert str(tmp_path / "none.mkv") in missing.message
    assert "broken.mkv" in broken.message
    assert isinstance(done, ScanItem)
    assert records(tmp_path).known(["0", "1", "2"]) == {"2"}


def test_all_that_was_found_is_one_part_which_reads_back(tmp_path):
    done = scan(tmp_path, grey_clip(tmp_path / "a.mkv"), tone(tmp_path / "b.wav"))
    assert len(list((tmp_path / "store" / FOLDER).iterdir())) == 1
    found = records(tmp_path).read(["0", "1"])
    assert [Scan.model_validate_json(one.text or "") for one in found.values()] == [
        one.scan for one in done
    ]
    assert {one.kind for one in found.values()} == {"scan"}


def test_where_nothing_was_found_nothing_is_put(tmp_path):
    scan(tmp_path, tmp_path / "none.mkv")
    assert records(tmp_path).is_empty()
