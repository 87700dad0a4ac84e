"""Every source of some rows is looked at once, by whoever needs most of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayreel.config.encode import SceneSpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.runs.encoding.scans import scan_rows
from rayreel.stages.base import ItemFailure
from rayreel.stages.scan import ScanItem, ScanStage
from tests.media.samples import grey_levels, write_video
from tests.runs.encoding.clips import Passing, row


class Scanning(Passing):
    """Scans here and now."""

    def __init__(self, folder: Path, scenes: SceneSpec | None = None) -> None:
        super().__init__()
        self.stage = ScanStage(str(folder), scenes)
        self.stage.setup()

    def through(self, name, items, batches):
        self.results = {one.item_id: one for one in map(_looked_at, self.stage(items), items)}
        return super().through(name, items, batches)

    @property
    def looked_at(self) -> list[tuple[str, bool]]:
        """Names of files, and whether each was more than hashed."""
        items = [one for _, some in self.asked for one in some if isinstance(one, ScanItem)]
        return sorted((Path(one.source).name, one.whole) for one in items)


def _looked_at(result, item) -> ScanItem | ItemFailure:
    return result if isinstance(result, ItemFailure) else replace(item, scan=result.scan)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(2):
        write_video(tmp_path / f"{number}.mkv", grey_levels(9 + number))
    (tmp_path / "mask.bin").write_bytes(b"mask")
    (tmp_path / "broken.mkv").write_bytes(b"nothing")
    return tmp_path


def scanned(folder: Path, tries: Passing, *rows, scenes: SceneSpec | None = None):
    records = RecordStore(Storage(folder / "store"))
    found: dict[str, Any] = scan_rows(rows, scenes, records, tries)
    return found


def test_each_source_is_looked_at_once(clips):
    tries = Scanning(clips / "store")
    first, second, mask = (str(clips / name) for name in ("0.mkv", "1.mkv", "mask.bin"))
    rows = [row(video=first, video_mask=mask), row(video=first)]
    found = scanned(clips, tries, *rows, row(video=second, video_mask=first))
    assert tries.looked_at == [("0.mkv", True), ("1.mkv", True), ("mask.bin", False)]
    kinds = {Path(source).name: scan.kind for source, scan in found.items()}
    assert kinds == {"0.mkv": "video", "1.mkv": "video", "mask.bin": "file"}


def test_what_was_scanned_is_not_looked_at_again_until_it_changes(clips):
    one = row(video=str(clips / "0.mkv"), audio_mask=str(clips / "mask.bin"))
    found = scanned(clips, Scanning(clips / "store"), one)
    again = Scanning(clips / "store")
    assert scanned(clips, again, one) == found
    assert again.looked_at == []
    write_video(clips / "0.mkv", grey_levels(17))
    changed = scanned(clips, again, one)
    assert again.looked_at == [("0.mkv", True)]
    assert changed[one.media["video"]].num_frames == 17


def test_other_scenes_are_another_look_but_not_at_masks(clips):
    one = row(video=str(clips / "0.mkv"), audio_mask=str(clips / "mask.bin"))
    scanned(clips, Scanning(clips / "store"), one)
    scenes = SceneSpec(min_frames=2)
    cutting = Scanning(clips / "store", scenes)
    scanned(clips, cutting, one, scenes=scenes)
    assert cutting.looked_at == [("0.mkv", True)]


def test_sources_that_cannot_be_read_say_so_beside_the_others(clips):
    names = ("none.mkv", "broken.mkv", "0.mkv")
    rows = [row(video=str(clips / name)) for name in names]
    none, broken, good = scanned(clips, Scanning(clips / "store"), *rows).values()
    assert none == f"cannot read {clips}/none.mkv: No such file or directory"
    assert "broken.mkv" in broken
    assert good.num_frames == 9
