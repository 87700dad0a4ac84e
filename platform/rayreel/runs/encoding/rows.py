"""Rows of a dataset list: captions, and media under the names that they are encoded as."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rayreel.config.encode import EncodeSpec, Part
from rayreel.data.manifest import Manifest
from rayreel.errors import SpecError

MediaColumn = Literal[
    "video", "audio", "reference_video", "reference_audio", "video_mask", "audio_mask"
]
"""Columns that hold paths."""

# Read where a column has its usual name.
_ALIASES = {"video": "media_path", "reference_video": "ref_media_path"}
_PARTS: dict[MediaColumn, set[Part]] = {
    "video": {"video"},
    "audio": {"audio"},
    "reference_video": {"reference", "video"},
    "reference_audio": {"reference", "audio"},
    "video_mask": {"masks", "video"},
    "audio_mask": {"masks", "audio"},
}
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow:
    """A row of the list.

    Attributes:
        number: Where a person finds it.
        name: What reports call it.
        caption: As the list has it; empty where it has none.
        media: Paths or URIs by column.
        fault: What is wrong with the row itself.
    """

    number: int
    name: str
    caption: str
    media: dict[MediaColumn, str]
    fault: str = ""


class ClipList:
    """The rows of a list, read as often as needed.

    Attributes:
        num_rows: How many there are.
        has_video: Whether any of them has a video or an image.
    """

    def __init__(self, spec: EncodeSpec) -> None:
        """Read the list once.

        Args:
            spec: Of the job; the list is on any fsspec file system.

        Raises:
            SpecError: If the list cannot be read, or no row has a video or sound.
        """
        self._manifest = Manifest(spec.dataset)
        self._spec = spec
        self._base = spec.dataset.rpartition("/")[0]
        self.num_rows, self.has_video, has_sound = 0, False, False
        for row in self:
            self.num_rows += 1
            self.has_video = self.has_video or "video" in row.media
            has_sound = has_sound or "audio" in row.media
        if not self.num_rows:
            raise SpecError(f"{spec.dataset} has no rows")
        if not (self.has_video or has_sound):
            columns = {column for raw in self._manifest for column in raw.values}
            raise SpecError(_no_media(spec, sorted(columns)))

    def __iter__(self) -> Iterator[ClipRow]:
        """All rows; raises ``SpecError`` if the list is damaged or changed."""
        for number, values in self._manifest:
            yield self._row(number, values)

    def _row(self, number: int, values: dict[str, Any]) -> ClipRow:
        columns = self._spec.columns
        faults = []
        media: dict[MediaColumn, str] = {}
        for column in get_args(MediaColumn):
            if _PARTS[column].intersection(self._spec.skip):
                continue
            name = getattr(columns, column)
            if name == column and not values.get(name):
                name = _ALIASES.get(column, name)
            found = values.get(name)
            if not isinstance(found, str | None):
                faults.append(
                    f"field {name!r}: expected a path, got {type(found).__name__}; where it is no "
                    f"file, name another column as columns.{column}"
                )
            elif found and found.strip():
                media[column] = self._located(found.strip())
        caption = values.get(columns.caption, "")
        if not isinstance(caption, str):
            faults.append(f"field {columns.caption!r}: expected text, got {type(caption).__name__}")
            caption = ""
        if not faults and not {"video", "audio"} & media.keys():
            faults.append(f"neither {columns.video!r} nor {columns.audio!r} names a file")
        return ClipRow(
            number=number,
            name=str(values.get(columns.name, number))[:_LONGEST_NAME],
            caption=caption if caption.strip() else "",
            media=media,
            fault="; ".join(faults),
        )

    def _located(self, path: str) -> str:
        if "://" in path or path.startswith("/"):
            return path
        return f"{self._base}/{path}"


def _no_media(spec: EncodeSpec, found: list[str]) -> str:
    columns = spec.columns
    wanted: tuple[Part, ...] = ("video", "audio")
    left = {part: getattr(columns, part) for part in wanted if part not in spec.skip}
    if not left:
        return "field 'skip': expected video or audio to be left, got both"
    names = [name for name in found if name not in (columns.video, columns.audio)]
    part, name = next(iter(left.items()))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"is it {near[0]!r}? Set columns.{part}" if near else f"set columns.{part}"
    skipped = ", ".join(part for part in wanted if part in spec.skip)
    return (
        f"{spec.dataset}: no row has {' or '.join(left)}; expected the column "
        f"{' or '.join(map(repr, left.values()))}, found {', '.join(map(repr, found)) or 'none'}"
        f"{f' ({skipped} is skipped)' if skipped else ''}; {hint}"
    )
