"""``index.html`` of a dataset: to check it by eye."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rayreel.data.dataset import INFO_FILE, DatasetInfo
from rayreel.data.sources import local_copy
from rayreel.data.storage import Storage
from rayreel.runs.encoding.report.changes import Part, changed_parts
from rayreel.runs.encoding.report.decoded import CheckedClip
from rayreel.runs.encoding.report.numbers import Line, Numbers, read_numbers
from rayreel.runs.encoding.report.plots import channel_plot, job_plots, measure_plots
from rayreel.runs.planning.table import duration, size
from rayreel.runs.report.pages import render_page

PAGE_FILE = "index.html"
RESULTS_FILE = "results.parquet"
_LINKS = (RESULTS_FILE, INFO_FILE, "run.json")


class _Caption(NamedTuple):
    """A caption before and after it was cleaned."""

    name: str
    before: list[Part]
    after: list[Part]
    changes: list[str]
    by: str


def write_page(
    storage: Storage,
    *,
    title: str,
    summary: str,
    info: DatasetInfo | None,
    clips: Sequence[CheckedClip] = (),
) -> None:
    """Write the page of a dataset, from its ``results.parquet`` where it has one.

    Memory does not grow with the dataset: lists show their first lines, and say how many more
    there are.

    Args:
        storage: Of the dataset.
        title: Heading.
        summary: What the job came to, in one line.
        info: What the dataset holds; ``None`` if the job was stopped before it was published.
        clips: That were decoded to look at.

    Raises:
        RayreelError: If ``results.parquet`` is damaged.
    """
    found = Numbers()
    if has_results := storage.exists(RESULTS_FILE):
        with local_copy(storage.join(RESULTS_FILE)) as path:
            found = read_numbers(path)
    statistics = info and info.statistics
    channels = statistics and statistics.video_latents
    page = render_page(
        "dataset.html.j2",
        title=title,
        summary=summary,
        links=[name for name in _LINKS if storage.exists(name)],
        has_results=has_results,
        totals=_totals(found, info, has_results=has_results),
        clips=clips,
        plots=job_plots(found, statistics.buckets if statistics else found.buckets),
        measures=measure_plots(found),
        channels=channel_plot(channels) if channels else None,
        rules=sorted(found.rules.items(), key=lambda item: -item[1].against),
        failed=found.failed,
        dropped=found.dropped,
        statuses=found.statuses,
        captions=[_caption(line) for line in found.changed_captions],
        other_captions=found.other_captions,
        numbers=found,
        fingerprints=info.fingerprints if info else {},
    )
    storage.write_bytes(PAGE_FILE, page)


def _totals(found: Numbers, info: DatasetInfo | None, *, has_results: bool) -> dict[str, str]:
    totals = {}
    if has_results:
        totals = {
            "rows": f"{found.rows:,}",
            "clips and scenes": f"{found.clips:,}",
            "dropped": f"{found.statuses['dropped']:,}",
            "failed": f"{found.statuses['failed']:,}",
        }
    if info:
        statistics = info.statistics
        totals |= {
            "samples": f"{info.num_samples:,}",
            "with sound": f"{statistics.with_audio:,}",
            "frames": f"{statistics.frames:,}",
            "duration": duration(statistics.seconds),
            "shards": f"{len(info.shards):,}",
            "size": size(sum(shard.num_bytes for shard in info.shards)),
        }
    return totals


def _caption(line: Line) -> _Caption:
    values: dict[str, Any] = line
    before, after = changed_parts(values["caption_original"] or "", values["caption"] or "")
    return _Caption(
        name=values["name"],
        before=before,
        after=after,
        changes=values["caption_changes"],
        by=values["caption_by"] or "",
    )
