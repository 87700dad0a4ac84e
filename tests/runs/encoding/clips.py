"""Rows and scans as values, and a stand-in for the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayreel.config.encode import EncodeSpec, EncodeStageName
from rayreel.data.samples import Scan, Scene
from rayreel.runs.encoding.rows import ClipRow, MediaColumn
from rayreel.runs.encoding.samples import Candidate, Decisions
from rayreel.stages.base import ItemFailure, StageItem

BUCKETS = "96x64x17;64x96x17;64x64x9"


def spec(**fields: Any) -> EncodeSpec:
    return EncodeSpec.model_validate({"dataset": "/clips/list.csv", "buckets": BUCKETS, **fields})


def row(
    number: int = 1, *, caption: str = "A fox.", fault: str = "", **media: str | None
) -> ClipRow:
    """A row of a video, and whatever else it names; ``video=None`` for one without."""
    named: Mapping[Any, str | None] = {"video": "clip.mp4", **media}
    files: dict[MediaColumn, str] = {column: path for column, path in named.items() if path}
    name = f"row {number}"
    return ClipRow(number=number, name=name, caption=caption, media=files, fault=fault)


def video(content: str = "c", *, scenes: Sequence[Scene] = (), **fields: Any) -> Scan:
    """A scan of 24 frames of 96 x 64 at 24 frames per second, with sound."""
    values = {"width": 96, "height": 64, "num_frames": 24, "fps": 24.0, "sound_s": 1.0, **fields}
    whole = scene(num_frames=values["num_frames"])
    return Scan.model_validate(
        {"content": content, "kind": "video", "duration_s": 1.0, "scenes": scenes or (whole,)}
        | values
    )


def sound(content: str = "s", seconds: float | None = 3.0) -> Scan:
    only = scene(num_frames=0)
    return Scan(content=content, kind="audio", sound_s=seconds, scenes=(only,))


def scene(start: int = 0, num_frames: int = 24, phash: str = "", **measures: float) -> Scene:
    return Scene(start=start, num_frames=num_frames, phash=phash, measures=measures)


def decided(job: EncodeSpec, one: ClipRow, **scans: Scan | str) -> list[Candidate]:
    """What is decided about a row alone; scans by column."""
    named: Mapping[Any, Scan | str] = scans
    return list(Decisions(job).of(one, {one.media[column]: scan for column, scan in named.items()}))


@dataclass
class Passing:
    """Sends items nowhere, and answers with what a test says; keeps what it was asked."""

    results: Mapping[str, Any] = field(default_factory=dict)
    asked: list[tuple[EncodeStageName, list[StageItem]]] = field(default_factory=list)

    def through(self, name: EncodeStageName, items: Sequence[Any], batches: Any) -> dict[str, Any]:
        self.asked.append((name, list(items)))
        sent = [one.item_id for batch in batches(items, 2) for one in batch]
        assert sorted(sent) == sorted(item.item_id for item in items)
        return {item.item_id: self.results[item.item_id] for item in items}


def failure(item_id: str, message: str, stage: str = "caption") -> ItemFailure:
    return ItemFailure(
        item_id=item_id,
        stage=stage,
        error="ItemError",
        message=message,
        seed=None,
        attempt=1,
        seconds=0.0,
    )
