"""Media files to what they hold: read once, cut into scenes, and measured for filters."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rayreel.config.encode import SceneSpec
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.samples import Scan, Scene
from rayreel.data.sources import local_copy
from rayreel.data.storage import Storage
from rayreel.data.store import Record, RecordStore
from rayreel.media.footage import examine
from rayreel.media.measures import MEASURES, excerpts, measured, perceptual_hash
from rayreel.media.timing import timing_of
from rayreel.stages.base import ItemFailure, StageItem
from rayreel.stages.groups import in_groups
from rayreel.stages.life import alive

KIND = "scan"

# Of what is found, and of how it is kept.
_VERSION = "1"
_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanItem(StageItem):
    """A file that is looked at; its identity is ``scan_key``.

    Attributes:
        source: Path or URI.
        whole: Whether it is a medium; of masks only the content's hash is wanted.
        scan: What was found.
    """

    source: str
    whole: bool = True
    scan: Scan | None = None


@dataclass
class ScanStage:
    """Looks at files one by one, and keeps what it finds in the store.

    Attributes:
        store: Folder or URI.
        scenes: How videos are cut; ``None`` leaves them whole.
    """

    store: str
    scenes: SceneSpec | None = None
    name: str = field(default="scan", init=False)
    loads: tuple[str, ...] = field(default=(), init=False)
    _records: RecordStore = field(init=False, repr=False)

    def setup(self) -> None:
        """Open the store."""
        self._records = RecordStore(Storage(self.store))

    def __call__(self, batch: Sequence[ScanItem]) -> list[ScanItem | ItemFailure]:
        """Fill in ``scan``; all that was found becomes one part of the store."""
        results = in_groups(self.name, batch, lambda item: item.item_id, self._scan)
        records = [
            Record(key=one.item_id, kind=KIND, text=one.scan.model_dump_json())
            for one in results
            if isinstance(one, ScanItem) and one.scan
        ]
        if records:
            self._records.put(*records)
        return results

    def _scan(self, items: list[ScanItem]) -> list[ScanItem]:
        (item,) = items
        alive()
        with local_copy(item.source) as path:
            content = hash_file(path)
            if not item.whole:
                return [replace(item, scan=Scan(content=content, kind="file"))]
            return [replace(item, scan=scan_file(path, content, self.scenes))]


def scan_key(source: str, token: str, *, whole: bool, scenes: SceneSpec | None) -> str:
    """Identity of a scan.

    Args:
        source: Path or URI.
        token: What changes with the file, such as its size and time.
        whole: As of ``ScanItem``.
        scenes: As of ``ScanStage``.
    """
    cut = scenes.model_dump(mode="json") if scenes and whole else None
    # A measure that is new is in no scan from before.
    found = canonical_json([whole, cut, sorted(MEASURES)])
    return content_hash(KIND, _VERSION, source, token, found)


def scan_file(path: Path, content: str, scenes: SceneSpec | None) -> Scan:
    """What a local medium holds.

    Args:
        path: Of the file.
        content: Hash of its bytes.
        scenes: How videos are cut.

    Raises:
        MediaError: If it cannot be read, or is of a kind that is refused.
    """
    footage = examine(path, scenes)
    seen_scenes = excerpts(footage, scenes.max_scenes if scenes else None)
    return Scan(
        content=content,
        kind=footage.kind,
        width=footage.width,
        height=footage.height,
        num_frames=footage.num_frames,
        fps=footage.fps,
        duration_s=footage.duration_s,
        late_s=max(0.0, timing_of(path).late_s) if footage.kind == "video" else 0.0,
        sound_s=footage.sound_s,
        channels=footage.channels,
        notes=footage.notes,
        scenes=tuple(
            Scene(
                start=seen.start,
                num_frames=seen.num_frames,
                measures=measured(seen),
                phash=perceptual_hash(seen.thumbs),
            )
            for seen in seen_scenes
        ),
    )


def hash_file(path: Path) -> str:
    """Hash of a file's bytes, as 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
