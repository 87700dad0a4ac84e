"""What an encode job came to in numbers, from its ``results.parquet``, read a piece at a time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayreel.data.columns import MEASURE
from rayreel.errors import RayreelError
from rayreel.runs.report.plots import WIDE

_PIECE = 20_000
_BINS = 40
_MOST_LISTED = 300
_MOST_UNCHANGED = 50
_CAPTIONS = ("name", "caption", "caption_original", "caption_changes", "caption_by")
_REASONS = ("name", "scene", "status", "rule", "reason", "all_reasons", "source")
_PLAIN = ("row", "status", "bucket", "fps", "kind")
_SECONDS = "seconds"

Line = dict[str, Any]
"""A line of the table, by column."""


@dataclass(slots=True)
class Distribution:
    """How often values come, of samples and of all other clips.

    Attributes:
        edges: Of the bins, one more than there are bins.
        done: Counts by bin, of samples.
        others: The same, of clips that are none.
    """

    edges: NDArray[np.float64]
    done: NDArray[np.int64]
    others: NDArray[np.int64]

    @classmethod
    def between(cls, low: float, high: float) -> "Distribution":
        """Without a value yet.

        Args:
            low: The least value to come.
            high: The greatest; far from the least, bins grow with the values.
        """
        if low == high:
            edges = np.array([low - 0.5, low + 0.5])
        elif low > 0 and high / low > WIDE:
            edges = np.geomspace(low, high, _BINS + 1)
            # Rounding may leave the extremes outside.
            edges[0], edges[-1] = low, high
        else:
            edges = np.linspace(low, high, _BINS + 1)
        none = np.zeros(len(edges) - 1, np.int64)
        return cls(edges, none, none.copy())

    def add(self, values: NDArray[np.float64], done: NDArray[np.bool_]) -> None:
        """Count values; not those that are no numbers."""
        there = np.isfinite(values)
        self.done += np.histogram(values[there & done], self.edges)[0]
        self.others += np.histogram(values[there & ~done], self.edges)[0]


@dataclass(slots=True)
class RuleCount:
    """How often a rule spoke against clips.

    Attributes:
        decided: Clips that it was the first to speak against.
        against: All that it spoke against.
        alone: Those that nothing else spoke against.
    """

    decided: int = 0
    against: int = 0
    alone: int = 0


@dataclass(slots=True)
class Numbers:
    """What a job came to: counts, and the first lines of each kind.

    Attributes:
        rows: Rows of the list.
        statuses: Clips by what became of them.
        buckets: Samples by bucket.
        rules: By what became of the clips and the rule's name, in the order of their first ones.
        seconds: Durations of samples that are videos; none without any.
        measures: By name.
        changed: Clips whose caption was changed when it was cleaned.
        captions: Clips with a caption.
        changed_captions: The first of those that were changed.
        other_captions: The first of those that were not.
        failed: The first clips that failed.
        dropped: The first that a rule took out.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    buckets: Counter[str] = field(default_factory=Counter)
    rules: dict[tuple[str, str], RuleCount] = field(default_factory=dict)
    seconds: Distribution | None = None
    measures: dict[str, Distribution] = field(default_factory=dict)
    changed: int = 0
    captions: int = 0
    changed_captions: list[Line] = field(default_factory=list)
    other_captions: list[Line] = field(default_factory=list)
    failed: list[Line] = field(default_factory=list)
    dropped: list[Line] = field(default_factory=list)

    @property
    def clips(self) -> int:
        """Clips and scenes of the list."""
        return self.statuses.total()


def read_numbers(path: Path) -> Numbers:
    """Numbers of a ``results.parquet``; memory does not grow with its lines.

    Args:
        path: A local file.

    Raises:
        RayreelError: If it is damaged, or another job's.
    """
    try:
        return _read(path)
    except (pa.ArrowException, OSError) as error:
        raise RayreelError(f"the dataset's {path.name} cannot be read: {error}") from error


def _read(path: Path) -> Numbers:
    found = Numbers()
    columns = list(dict.fromkeys((*_PLAIN, *_CAPTIONS, *_REASONS)))
    with pq.ParquetFile(path) as file:
        if lacking := [name for name in columns if name not in file.schema_arrow.names]:
            raise RayreelError(
                f"the dataset's {path.name} is not what an encode job writes: it has no column "
                f"{', '.join(lacking)}"
            )
        measures = [name for name in file.schema_arrow.names if name.startswith(MEASURE)]
        limits = _limits(file, measures)
        found.measures = {
            name.removeprefix(MEASURE): Distribution.between(*limits[name])
            for name in measures
            if name in limits
        }
        if _SECONDS in limits:
            found.seconds = Distribution.between(*limits[_SECONDS])
        last_row = None
        for piece in _pieces(file, [*columns, *measures]):
            rows = piece["row"].to_numpy()
            # Scenes of one row follow each other.
            found.rows += int(np.count_nonzero(np.diff(rows))) + int(rows[0] != last_row)
            last_row = rows[-1]
            _count(found, piece)
            _list(found, piece)
    return found


def _limits(file: pq.ParquetFile, measures: list[str]) -> dict[str, tuple[float, float]]:
    """Least and greatest finite values by column, and of seconds; none of a column without any."""
    limits: dict[str, tuple[float, float]] = {}
    for piece in _pieces(file, [*_PLAIN, *measures]):
        columns = {name: _floats(piece[name]) for name in measures}
        for name, values in {**columns, _SECONDS: _seconds(piece)}.items():
            there = values[np.isfinite(values)]
            if len(there):
                low, high = limits.get(name, (np.inf, -np.inf))
                limits[name] = min(low, float(there.min())), max(high, float(there.max()))
    return limits


def _pieces(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    for batch in file.iter_batches(_PIECE, columns=columns):
        if len(batch):
            yield pa.Table.from_batches([batch])


def _count(found: Numbers, piece: pa.Table) -> None:
    done = np.asarray(piece["status"]) == "done"
    found.statuses.update(_counts(piece["status"]))
    found.buckets.update(_counts(piece.filter(pa.array(done))["bucket"]))
    for name, distribution in found.measures.items():
        distribution.add(_floats(piece[MEASURE + name]), done)
    if found.seconds:
        found.seconds.add(_seconds(piece), done)
    for line in piece.select(["status", "rule", "all_reasons"]).filter(pa.array(~done)).to_pylist():
        _count_rules(found, line)


def _count_rules(found: Numbers, line: Line) -> None:
    status, first = line["status"], line["rule"] or "unknown"
    others = (reason.partition(":")[0] for reason in line["all_reasons"] or ())
    rules = list(dict.fromkeys((first, *others)))
    for rule in rules:
        count = found.rules.setdefault((status, rule), RuleCount())
        count.decided += rule == first
        count.against += 1
        count.alone += len(rules) == 1


def _list(found: Numbers, piece: pa.Table) -> None:
    """Keep the first lines of each kind."""
    has_caption = pc.is_valid(piece["caption"])
    is_changed = pc.greater(pc.list_value_length(piece["caption_changes"]), 0)
    is_changed = pc.and_(has_caption, is_changed)
    found.captions += pc.sum(has_caption).as_py() or 0
    found.changed += pc.sum(is_changed).as_py() or 0
    is_other = pc.and_not(has_caption, is_changed)
    _keep(found.changed_captions, piece, is_changed, _CAPTIONS, _MOST_LISTED)
    _keep(found.other_captions, piece, is_other, _CAPTIONS, _MOST_UNCHANGED)
    for kept, status in ((found.failed, "failed"), (found.dropped, "dropped")):
        _keep(kept, piece, pc.equal(piece["status"], status), _REASONS, _MOST_LISTED)


def _keep(
    kept: list[Line], piece: pa.Table, wanted: pa.Array, columns: tuple[str, ...], most: int
) -> None:
    if len(kept) < most:
        lines = piece.select(columns).filter(wanted).slice(0, most - len(kept))
        kept += lines.to_pylist()


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    values = pc.value_counts(column.combine_chunks()).to_pylist()
    return {one["values"]: one["counts"] for one in values if one["values"] is not None}


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Values of a column, nulls as NaN."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _seconds(piece: pa.Table) -> NDArray[np.float64]:
    """Durations of videos that are samples; NaN for all other lines."""
    frames = pc.list_element(pc.split_pattern(_sample_buckets(piece), "x"), 2).cast(pa.float64())
    return _floats(pc.divide(frames, piece["fps"]))


def _sample_buckets(piece: pa.Table) -> pa.ChunkedArray:
    wanted = pc.and_(pc.equal(piece["status"], "done"), pc.equal(piece["kind"], "video"))
    return pc.if_else(wanted, piece["bucket"], None)
