"""Why samples would be encoded anew: what the store does not have of them, and what instead."""

from collections.abc import Collection, Iterator, Sequence

from rayreel.config.encode import EncodeSpec, EncodeStageName
from rayreel.errors import SpecError
from rayreel.runs.encoding.captions import Caption, captions_of
from rayreel.runs.encoding.opened import check
from rayreel.runs.encoding.samples import Candidate, Decisions
from rayreel.runs.encoding.scans import scan_rows
from rayreel.runs.encoding.store import SampleStore
from rayreel.runs.encoding.tries import Batches, I
from rayreel.runs.encoding.waves import in_waves
from rayreel.stages.base import ItemFailure

# Each reads the whole store.
_MOST = 20
_WHY: dict[str, str] = {
    "scan": "it was never looked at, or has changed since",
    "caption": "its caption was not written yet",
}


class _OnlyKnown:
    """Sends nothing anywhere: what is not in the store is not there."""

    def through(
        self,
        name: EncodeStageName,
        items: Sequence[I],
        batches: Batches[I],  # noqa: ARG002 - as others do
    ) -> dict[str, I | ItemFailure]:
        """The reason, for every item."""
        return {
            item.item_id: ItemFailure(
                item_id=item.item_id,
                stage=name,
                error="Unknown",
                message=_WHY[name],
                seed=None,
                attempt=1,
                seconds=0.0,
            )
            for item in items
        }


def explain(spec: EncodeSpec, names: Collection[str] = ()) -> str:
    """What a job would encode anew, and why, as lines of text; encodes and writes nothing.

    Args:
        spec: The job; its paths are absolute.
        names: Of rows; by default all, of which the first that are stale are explained.

    Raises:
        SpecError: If the spec or the list is wrong, or has no row of a name.
        CheckpointError: If weight files are.
    """
    files, rows = check(spec)
    if unknown := sorted(set(names) - {row.name for row in rows}):
        raise SpecError(f"{spec.dataset} has no row called {unknown[0]!r}")
    store, decisions = SampleStore(spec, files), Decisions(spec)
    lines: list[str] = []
    stale = total = 0
    for wave in in_waves(rows, spec.wave):
        scans = scan_rows(wave, spec.scenes, store.records, _OnlyKnown())
        for candidate in (one for row in wave for one in decisions.of(row, scans.of)):
            if names and candidate.row.name not in names:
                continue
            total += 1
            found = list(_reasons(candidate, spec, store)) if len(lines) < _MOST or names else []
            found = found or [""] * _is_stale(candidate, spec, store)
            stale += bool(found)
            lines += [f"{candidate.row.name}: {why}" for why in found if why]
    head = f"{total} clips or scenes: {total - stale} as they were encoded, {stale} not"
    return "\n".join([*lines, head])


def _reasons(candidate: Candidate, spec: EncodeSpec, store: SampleStore) -> Iterator[str]:
    if candidate.status != "kept":
        finding = candidate.findings[0]
        if finding.reason == _WHY["scan"]:
            yield finding.reason
        return
    caption = _caption(candidate, spec, store)
    if isinstance(caption, str):
        yield f"caption: {caption}"
    else:
        yield from store.stale(store.sample(candidate, caption))


def _is_stale(candidate: Candidate, spec: EncodeSpec, store: SampleStore) -> bool:
    """Whether anything is missing, without the reason."""
    if candidate.status != "kept":
        return candidate.findings[0].reason == _WHY["scan"]
    caption = _caption(candidate, spec, store)
    if isinstance(caption, str):
        return True
    keys = set(store.sample(candidate, caption).keys.values())
    texts = [caption.text] if caption else []
    return keys != store.records.known(keys) or bool(store.new_texts(texts))


def _caption(candidate: Candidate, spec: EncodeSpec, store: SampleStore) -> Caption | str | None:
    if "text" in spec.skip:
        return None
    (found,) = captions_of([candidate], spec.captions, store.records, _OnlyKnown())
    return found
