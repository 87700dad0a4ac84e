"""Captions of samples: from the list or a captioner, then cleaned, each change kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayreel.config.encode import CaptionSpec
from rayreel.data.captions import DEFAULT_PREFIXES, add_trigger, clean_caption
from rayreel.data.store import RecordStore
from rayreel.pipelines.captioners import caption_key
from rayreel.runs.encoding.samples import Candidate
from rayreel.runs.encoding.tries import Through
from rayreel.stages.base import ItemFailure
from rayreel.stages.caption import REQUESTS, CaptionItem, read_caption

_BY_LIST = "list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """The caption of a sample.

    Attributes:
        text: What is encoded.
        original: Before it was cleaned.
        changes: What cleaning did.
        by: Who wrote it: the list, or a captioner.
        note: What the captioner was not shown, or could not finish.
    """

    text: str
    original: str
    changes: tuple[str, ...]
    by: str
    note: str = ""


def captions_of(
    candidates: Sequence[Candidate], spec: CaptionSpec, records: RecordStore, tries: Through
) -> list[Caption | str]:
    """Captions of candidates that are kept.

    Args:
        candidates: Whose scans are known.
        spec: How captions are written and cleaned.
        records: Where written ones are kept.
        tries: For those that are not there yet.

    Returns:
        One per candidate, in order; a text where there is none, which says why.
    """
    written = _written([one for one in candidates if not one.row.caption], spec, records, tries)
    found: list[Caption | str] = []
    for candidate in candidates:
        caption: Caption | str
        result = written.get(_key(candidate, spec))
        if candidate.row.caption:
            caption = cleaned(candidate.row.caption, spec)
        elif isinstance(result, CaptionItem):
            by, note = result.caption_by or "", result.caption_note or ""
            caption = cleaned(result.caption or "", spec, by=by, note=note)
        elif isinstance(result, ItemFailure):
            caption = result.message
        else:
            caption = "it has no caption; add one to the list, or set captions.captioner"
        if isinstance(caption, Caption) and not caption.text:
            caption = f"nothing is left of its caption {caption.original!r} once it is cleaned"
        found.append(caption)
    return found


def _written(
    candidates: Sequence[Candidate], spec: CaptionSpec, records: RecordStore, tries: Through
) -> Mapping[str, CaptionItem | ItemFailure]:
    if spec.captioner is None:
        return {}
    items = {key: _item(one, key) for one in candidates if (key := _key(one, spec))}
    known = records.known(items)
    found: dict[str, CaptionItem | ItemFailure] = {
        key: read_caption(records, items[key]) for key in items if key in known
    }
    new = [item for key, item in items.items() if key not in known]
    return found | tries.through("caption", new, _batches)


def _batches(items: Sequence[CaptionItem], _: int) -> list[list[CaptionItem]]:
    size = 4 * REQUESTS
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _key(candidate: Candidate, spec: CaptionSpec) -> str:
    scan, scene = candidate.scan, candidate.scene
    if spec.captioner is None or scan is None or scene is None:
        return ""
    return caption_key(spec, content=scan.content, start=scene.start, num_frames=scene.num_frames)


def _item(candidate: Candidate, key: str) -> CaptionItem:
    scan, scene = candidate.scan, candidate.scene
    assert scan, "it has a key"
    assert scene, "it has a key"
    assert scan.kind != "file", "masks are no samples"
    media = candidate.row.media
    return CaptionItem(
        item_id=key,
        source=media["video"] if "video" in media else media["audio"],
        content=scan.content,
        kind=scan.kind,
        start=scene.start,
        num_frames=scene.num_frames,
        fps=scan.fps,
    )


def cleaned(original: str, spec: CaptionSpec, *, by: str = _BY_LIST, note: str = "") -> Caption:
    """A caption as it is encoded.

    Args:
        original: As it was written.
        spec: How it is cleaned.
        by: Who wrote it.
        note: What the captioner was not shown, or could not finish.
    """
    if spec.clean:
        prefixes = DEFAULT_PREFIXES if spec.prefixes is None else spec.prefixes
        found = clean_caption(original, prefixes, spec.trigger)
    else:
        found = add_trigger(original, spec.trigger)
    return Caption(text=found.caption, original=original, changes=found.changes, by=by, note=note)


def unwritten_captions(
    candidates: Sequence[Candidate], spec: CaptionSpec, records: RecordStore
) -> int:
    """How many captions have yet to be written."""
    if spec.captioner is None:
        return 0
    keys = {_key(one, spec) for one in candidates if not one.row.caption}
    return len(keys - records.known(keys))
