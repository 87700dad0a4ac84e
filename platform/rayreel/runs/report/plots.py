"""Plots of a run as SVG that takes on the colours of the page around it."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from rayreel.runs.report.statistics import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BARS = 120
_WIDTH = 7.2

WIDE = 30.0
"""Values whose greatest is so many times the least are drawn on a logarithmic axis."""

# Stands for the colour of the text, which differs from reader to reader.
INK = "#010203"
FILL = "#4c8bf5"
BAD = "#d9534f"


def make_plots(found: Statistics) -> dict[str, str]:
    """Markup of the plots that there is something to show in, by title.

    Args:
        found: Numbers of the run.
    """
    plots = {}
    if found.finished_at:
        plots["Clips finished per minute"] = plot_svg(2.8, lambda axes: _throughput(axes, found))
    if found.stage_seconds:
        height = 1.1 + 0.45 * len(found.stage_seconds)
        plots["Seconds per stage"] = plot_svg(
            height, lambda axes: _stages(axes, found.stage_seconds)
        )
    if found.failures:
        kinds = found.common_failures[:12]
        bars = {f"{stage}: {error}": kind.count for stage, error, kind in kinds}
        plots["Failed clips by stage and class"] = plot_svg(
            bars_height(bars), lambda axes: draw_bars(axes, bars)
        )
    if found.batches:
        plots["Clips by size of their batch"] = plot_svg(2.6, lambda axes: _batches(axes, found))
    return plots


def plot_svg(height: float, draw: Callable[["Axes"], None], *, width: float = _WIDTH) -> str:
    """Markup of a plot, as wide as the page has room for.

    Args:
        height: In inches.
        draw: Draws it, in ``INK`` where it shall have the colour of the text.
        width: In inches; the narrower, the larger its text will be.
    """
    # Imported where it is used: it takes a second, and few who import this package plot.
    with _style():
        from matplotlib.figure import Figure  # noqa: PLC0415 - as said

        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # As wide as the page has room for.
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl  # noqa: PLC0415 - see plot_svg

    colours = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    settings: Any = {
        **dict.fromkeys(colours, INK),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "rayreel",
        "text.parse_math": False,
        "font.size": 10,
    }
    with mpl.rc_context(settings):
        yield


def _throughput(axes: "Axes", found: Statistics) -> None:
    times = np.asarray(found.finished_at)
    start, end = times.min(), times.max()
    # Whole minutes, and more of them in a bar where the run was long.
    minutes = max(1, int(np.ceil((end - start) / 60 / _MOST_BARS)))
    bars = max(1, int(np.ceil((end - start + 1) / (60 * minutes))))
    edges = start + 60 * minutes * np.arange(bars + 1)
    counts, _ = np.histogram(times, edges)
    hours = edges[-1] - edges[0] > 3 * 3600
    unit = 3600 if hours else 60
    axes.stairs(counts / minutes, (edges - start) / unit, fill=True, color=FILL)
    since = datetime.fromtimestamp(start, UTC)
    axes.set_xlabel(f"{'hours' if hours else 'minutes'} since {since:%Y-%m-%d %H:%M} UTC")
    axes.set_ylabel("clips per minute")
    axes.set_xlim(0, (edges[-1] - start) / unit)


def _stages(axes: "Axes", stage_seconds: Mapping[str, Sequence[float]]) -> None:
    boxes = []
    for stage, seconds in stage_seconds.items():
        low, first, middle, third, high = np.percentile(seconds, (5, 25, 50, 75, 95))
        boxes.append(
            {"label": stage, "whislo": low, "q1": first, "med": middle, "q3": third,
             "whishi": high, "fliers": []}
        )  # fmt: skip
    axes.bxp(
        boxes[::-1],
        orientation="horizontal",
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": FILL, "edgecolor": INK},
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops={"color": INK},
        capprops={"color": INK},
    )
    lows, highs = [box["whislo"] for box in boxes], [box["whishi"] for box in boxes]
    if min(lows) > 0 and max(highs) / min(lows) > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel("seconds: box p25 to p75 with p50, whiskers p5 and p95")


def bars_height(counts: Mapping[str, int]) -> float:
    """Height of a plot that ``draw_bars`` draws."""
    return 0.9 + 0.4 * len(counts)


def draw_bars(axes: "Axes", counts: Mapping[str, int], colours: Sequence[str] = (BAD,)) -> None:
    """Horizontal bars with their counts of clips, the first at the top.

    Args:
        axes: To draw in.
        counts: By name.
        colours: Of each bar, or of all of them.
    """
    names = list(counts)[::-1]
    drawn = axes.barh(names, [counts[name] for name in names], color=colours[::-1], height=0.6)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=4)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("clips")


def _batches(axes: "Axes", found: Statistics) -> None:
    sizes = sorted(found.batches)
    drawn = axes.bar([str(size) for size in sizes], [found.batches[s] for s in sizes], color=FILL)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=2)
    axes.margins(y=0.12)
    axes.set_xlabel("clips in the batch")
    axes.set_ylabel("clips")
