"""Why samples would be encoded anew: what the store does not have of them, and what instead."""

from collections.abc import Collection, Sequence

from rayreel.config.encode import EncodeSpec, EncodeStageName
from rayreel.data.ledger import Ledger, LedgerTable
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.runs.encoding.captions import captions_of
from rayreel.runs.encoding.opened import check
from rayreel.runs.encoding.samples import Candidate, Decisions
from rayreel.runs.encoding.scans import scan_rows
from rayreel.runs.encoding.store import Sample, SampleStore
from rayreel.runs.encoding.tries import Batches, I
from rayreel.runs.passes import in_waves
from rayreel.stages.base import ItemFailure

# Each reads the whole store.
_MOST = 20
_WHY: dict[str, str] = {
    "scan": "it was never looked at, or has changed since",
    "caption": "its caption was not written yet",
}


class _OnlyKnown:
    """Sends nothing anywhere: what is not in the store is not there, or has failed."""

    def __init__(self, table: LedgerTable) -> None:
        self._table = table

    def through(
        self,
        name: EncodeStageName,
        items: Sequence[I],
        batches: Batches[I],  # noqa: ARG002 - as others do
    ) -> dict[str, I | ItemFailure]:
        """The reason, for every item."""
        return {item.item_id: self._reason(name, item.item_id) for item in items}

    def _reason(self, name: EncodeStageName, item_id: str) -> ItemFailure:
        entry = self._table.entry(item_id)
        failed = entry and entry.error
        return ItemFailure(
            item_id=item_id,
            stage=name,
            error=failed.error if failed else "Unknown",
            message=failed.message if failed else _WHY[name],
            seed=None,
            attempt=1,
            seconds=0.0,
        )


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
    known = _OnlyKnown(Ledger(Storage(spec.output)).table())
    lines: list[str] = []
    stale = total = 0
    for wave in in_waves(rows, spec.wave):
        scans = scan_rows(wave, spec.scenes, store.records, known)
        for candidate in (one for row in wave for one in decisions.of(row, scans)):
            if names and candidate.row.name not in names:
                continue
            total += 1
            judged = _judged(candidate, spec, store, known)
            if isinstance(judged, Sample):
                told = names or len(lines) < _MOST
                why = [*store.stale(judged)] if told else [""] * store.is_stale(judged)
            else:
                why = [judged] if judged else []
            stale += bool(why)
            lines += [f"{candidate.row.name}: {reason}" for reason in why if reason]
    head = f"{total} clips or scenes: {total - stale} as they were encoded, {stale} not"
    return "\n".join([*lines, head])


def _judged(
    candidate: Candidate, spec: EncodeSpec, store: SampleStore, known: _OnlyKnown
) -> Sample | str:
    """What a candidate would be, or why that is not known; empty if there is nothing to encode."""
    if candidate.status != "kept":
        reason = candidate.findings[0].reason
        return reason if reason == _WHY["scan"] else ""
    if "text" in spec.skip:
        return store.sample(candidate, None)
    (caption,) = captions_of([candidate], spec.captions, store.records, known)
    if isinstance(caption, str):
        return caption if caption == _WHY["caption"] else ""
    return store.sample(candidate, caption)
