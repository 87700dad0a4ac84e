"""``report.html``: a run in numbers and plots."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rayreel.runs.report.pages import render_page
from rayreel.runs.report.plots import make_plots
from rayreel.runs.report.statistics import Statistics

_MOST_FAILURES = 20


class _Stage(NamedTuple):
    """Seconds that a stage took for a clip."""

    name: str
    clips: int
    p50: float
    p95: float
    total: float


def run_page(found: Statistics, *, title: str, summary: str, comparison: str | None) -> bytes:
    """The report as a page.

    Args:
        found: Numbers of the run.
        title: Heading.
        summary: What the run came to, in one line.
        comparison: What was planned against what happened, as lines of text.
    """
    return render_page(
        "report.html.j2",
        title=title,
        summary=summary,
        comparison=comparison,
        totals=_totals(found),
        plots=make_plots(found),
        stages=_stages(found.stage_seconds),
        memory=found.memory.most_common(),
        failures=found.common_failures[:_MOST_FAILURES],
        more_failures=max(0, len(found.failures) - _MOST_FAILURES),
        slowest=found.slowest,
    )


def _totals(found: Statistics) -> dict[str, str]:
    statuses = found.statuses
    span = max(found.finished_at) - min(found.finished_at) if found.finished_at else 0.0
    return {
        "rows": f"{found.rows:,}",
        "clips": f"{statuses.total():,}",
        "done": f"{statuses['done']:,}",
        "failed": f"{statuses['failed']:,}",
        "left": f"{statuses['left']:,}",
        "attempts": f"{found.attempts:,}",
        "clips tried again": f"{found.retried:,}",
        "memory steps taken": f"{found.memory.total():,}",
        "bytes written": _size(found.num_bytes),
        "first to last clip": _duration(span),
    }


def _stages(stage_seconds: Mapping[str, Sequence[float]]) -> list[_Stage]:
    stages = []
    for name, seconds in stage_seconds.items():
        p50, p95 = np.percentile(seconds, (50, 95)).tolist()
        total = float(np.sum(seconds))
        stages.append(_Stage(name, len(seconds), p50, p95, total))
    return stages


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.4g} TiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
