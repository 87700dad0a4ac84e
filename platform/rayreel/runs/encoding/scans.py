"""What the media of a wave of rows hold: looked up in the store, or found by a scan."""

from collections.abc import Iterable, Sequence

from rayreel.config.encode import SceneSpec
from rayreel.data.samples import Scan
from rayreel.data.sources import Token, tokens
from rayreel.data.store import RecordStore
from rayreel.runs.encoding.rows import ClipRow
from rayreel.runs.encoding.samples import is_whole
from rayreel.runs.encoding.tries import Through
from rayreel.runs.planning.order import longest_first
from rayreel.stages.base import ItemFailure
from rayreel.stages.scan import ScanItem, scan_key

_BATCH = 8


def scan_rows(
    rows: Sequence[ClipRow], scenes: SceneSpec | None, records: RecordStore, tries: Through
) -> dict[str, Scan | str]:
    """Find out about every source of some rows, each once.

    Args:
        rows: Of the list.
        scenes: How videos are cut.
        records: Where scans are kept.
        tries: For those that are not there yet.

    Returns:
        A scan of each source, or what is wrong with it.
    """
    whole = _sources(rows)
    seen = tokens(whole)
    found: dict[str, Scan | str] = {
        source: f"cannot read {source}: {error.strerror or error}"
        for source, error in seen.items()
        if isinstance(error, OSError)
    }
    there = {source: token for source, token in seen.items() if isinstance(token, Token)}
    keys = {
        source: scan_key(
            source, f"{token.num_bytes} {token.sign}", whole=whole[source], scenes=scenes
        )
        for source, token in there.items()
    }
    known = records.known(set(keys.values()))
    items = [
        ScanItem(item_id=key, source=source, whole=whole[source])
        for source, key in keys.items()
        if key not in known
    ]
    sizes = {source: token.num_bytes for source, token in there.items()}
    results = tries.through("scan", items, lambda left, workers: _by_size(left, workers, sizes))
    before = records.read(known)
    for source, key in keys.items():
        result = results.get(key)
        if isinstance(result, ItemFailure):
            found[source] = result.message
        elif isinstance(result, ScanItem) and result.scan:
            found[source] = result.scan
        else:
            found[source] = Scan.model_validate_json(before[key].text or "")
    return found


def _sources(rows: Iterable[ClipRow]) -> dict[str, bool]:
    """Sources of some rows, and whether each is more than a mask."""
    whole: dict[str, bool] = {}
    for row in rows:
        for column, source in row.media.items():
            whole[source] = whole.get(source, False) or is_whole(column)
    return whole


def _by_size(
    items: Sequence[ScanItem], workers: int, sizes: dict[str, int]
) -> list[list[ScanItem]]:
    """Large files first, so that no worker ends long after the others."""
    ordered = longest_first([sizes[item.source] for item in items], most=_BATCH, workers=workers)
    return [[items[index] for index in batch] for batch in ordered]
