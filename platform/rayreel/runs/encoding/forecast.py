"""A dry run: media are scanned, and what would become of them is told, before any encoding."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field

from rayreel.config.encode import EncodeSpec, EncodeStageName
from rayreel.requests.costs import CostBook
from rayreel.runs.budget import ErrorBudget
from rayreel.runs.encoding.costs import SOUND_ALONE, item_cost
from rayreel.runs.encoding.on_cluster import OnCluster
from rayreel.runs.encoding.opened import EncodeRun, open_encode
from rayreel.runs.encoding.progress import following_rows
from rayreel.runs.encoding.samples import Candidate
from rayreel.runs.encoding.tries import Tries, Workers
from rayreel.runs.encoding.waves import EncodeWaves
from rayreel.runs.passes import in_waves
from rayreel.runs.planning.table import duration, size, table_text
from rayreel.stages.base import StageItem

_MOST_FAILED = 10


@dataclass
class _Count:
    """What would become of a list."""

    statuses: Counter[str] = field(default_factory=Counter)
    buckets: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    new: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def add(self, candidates: Iterable[Candidate]) -> None:
        for one in candidates:
            self.statuses[one.status] += 1
            rules = list(dict.fromkeys(finding.rule for finding in one.findings))
            if one.status == "failed":
                self.failed.append(f"{one.row.name}: {one.findings[0].reason}")
                continue
            self.rules.update(rules)
            self.alone.update(rules if len(rules) == 1 else [])
            if one.status == "kept":
                self.buckets[str(one.bucket or SOUND_ALONE)] += 1


def forecast(spec: EncodeSpec, *, workers: Callable[[EncodeRun], Workers] = OnCluster) -> str:
    """What a job would do, as lines of text: scans stay in the store, nothing else is written.

    Args:
        spec: The job; its paths are absolute.
        workers: Where media are scanned.

    Raises:
        SpecError: If the spec or the list is wrong.
        CheckpointError: If weight files are.
        ClusterError: If the cluster cannot hold the scans.
    """
    count = _Count()
    with (
        open_encode(spec) as run,
        following_rows(run.rows.num_rows) as progress,
        closing(Tries(run, workers(run), run.ledger.table(), progress)) as tries,
    ):
        waves = EncodeWaves(run, tries, ErrorBudget(1, run.rows.num_rows))
        book = CostBook.load(run.store)
        for rows in in_waves(run.rows, spec.wave):
            candidates = waves.scan(rows)
            count.add(candidates)
            texts, latents, captions = waves.needed(candidates)
            count.new["captions"] += captions
            _expect(count, "text", texts, book)
            _expect(count, "latents", latents, book)
            progress.settle(len(rows), dict(count.statuses))
    return _told(run, count, book)


def _expect(
    count: _Count, name: EncodeStageName, items: Iterable[StageItem], book: CostBook
) -> None:
    """Add what items of a pass are known to take, on whatever device it was measured."""
    devices = sorted({cost.device for cost in book.stages if cost.stage == name})
    for item in items:
        count.new[name] += 1
        known = [book.cost(item_cost(name, item), device, 1).seconds for device in devices]
        seconds = [value for value in known if value is not None]
        if seconds:
            count.seconds[name] = count.seconds.get(name, 0.0) + min(seconds)
        else:
            count.unknown.add(name)


def _told(run: EncodeRun, count: _Count, book: CostBook) -> str:
    spec = run.spec
    total = count.statuses.total()
    parts = [f"{run.rows.num_rows} rows, {total} clips or scenes"]
    parts.append(
        table_text(
            ("would be", "clips"),
            [(name, str(count.statuses[name])) for name in ("kept", "dropped", "failed")],
        )
    )
    rules = {**dict.fromkeys(spec.filters, 0), **count.rules}
    if rules:
        lines = [
            (
                name,
                str(spec.filters.get(name, "")),
                str(count.rules[name]),
                str(count.alone[name]),
            )
            for name in rules
        ]
        parts.append(table_text(("rule", "expected", "against", "by it alone"), lines))
    parts.append(
        table_text(("bucket", "clips"), [(k, str(v)) for k, v in sorted(count.buckets.items())])
    )
    known = {one.shape: one.num_bytes for one in book.files}
    sizes = [known[name] * n for name, n in count.buckets.items() if name in known]
    complete = len(sizes) == len(count.buckets)
    work = [
        (what, str(count.new[name]), _time(count, name))
        for name, what in (
            ("captions", "captions to write"),
            ("text", "texts to encode"),
            ("latents", "clips to encode"),
        )
    ]
    parts.append(table_text(("work", "new", "of one worker"), work))
    total_bytes = size(sum(sizes)) if complete else "unknown until some were encoded"
    parts.append(f"size of the dataset: {total_bytes}")
    parts += [f"would fail: {line}" for line in count.failed[:_MOST_FAILED]]
    if len(count.failed) > _MOST_FAILED:
        parts.append(f"and {len(count.failed) - _MOST_FAILED} more")
    return "\n".join(parts)


def _time(count: _Count, name: str) -> str:
    if not count.new[name]:
        return ""
    if name == "captions" or name in count.unknown:
        return "unknown until some were encoded"
    return duration(count.seconds[name])
