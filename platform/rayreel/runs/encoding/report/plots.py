"""Plots of a dataset."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rayreel.data.dataset import ChannelStatistics
from rayreel.runs.encoding.report.numbers import Distribution, Numbers
from rayreel.runs.report.plots import (
    BAD,
    FILL,
    INK,
    WIDE,
    bars_height,
    draw_bars,
    plot_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BARS = 24
_NARROW = 4.4
_GREY = "#9aa0a6"
_COLOURS = {"done": FILL, "failed": BAD}


def job_plots(found: Numbers, buckets: Mapping[str, int]) -> dict[str, str]:
    """Markup of the plots that there is something to show in, by title.

    Args:
        found: Numbers of the job.
        buckets: Samples of the dataset by bucket.
    """
    plots = {}
    if buckets:
        bars = _longest(buckets)
        plots["Samples by bucket"] = plot_svg(
            bars_height(bars), lambda axes: draw_bars(axes, bars, [FILL])
        )
    if found.statuses.keys() - {"done"}:
        reasons = {
            f"{status}: {rule}": count.decided
            for (status, rule), count in found.rules.items()
            if count.decided
        }
        kinds = {"done": found.statuses["done"], **_longest(reasons)}
        colours = [_COLOURS.get(name.partition(":")[0], _GREY) for name in kinds]
        plots["What became of clips"] = plot_svg(
            bars_height(kinds), lambda axes: draw_bars(axes, kinds, colours)
        )
    if seconds := found.seconds:
        plots["Seconds of samples that are videos"] = plot_svg(
            2.4, lambda axes: _histogram(axes, seconds, "seconds")
        )
    return plots


def measure_plots(found: Numbers) -> dict[str, str]:
    """Markup of a small plot of each measure, by title."""
    return {
        name: plot_svg(2.0, partial(_histogram, shown=shown), width=_NARROW)
        for name, shown in found.measures.items()
    }


def channel_plot(channels: ChannelStatistics) -> str:
    """Markup of a plot of the latents' mean and standard deviation by channel."""

    def draw(axes: "Axes") -> None:
        numbers = np.arange(len(channels.mean))
        axes.axhspan(-1, 1, color=INK, alpha=0.06, linewidth=0)
        axes.axhline(0, color=INK, alpha=0.4, linewidth=1)
        axes.errorbar(
            numbers,
            channels.mean,
            yerr=np.sqrt(channels.variance),
            fmt="o",
            color=FILL,
            markersize=3,
            elinewidth=1.2,
        )
        axes.set_xlim(-1, len(numbers))
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("channel: mean, and one standard deviation to both sides")

    return plot_svg(2.8, draw)


def _histogram(axes: "Axes", shown: Distribution, unit: str = "") -> None:
    both = shown.done + shown.others
    axes.stairs(both, shown.edges, fill=True, color=_GREY)
    axes.stairs(shown.done, shown.edges, fill=True, color=FILL)
    low, high = shown.edges[0], shown.edges[-1]
    if low > 0 and high / low > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.set_ylabel("clips")
    if unit:
        axes.set_xlabel(unit)


def _longest(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts from the greatest on; the least ones together where there are many."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = dict(ordered[:_MOST_BARS]), ordered[_MOST_BARS:]
    if rest:
        shown[f"{len(rest)} others"] = sum(count for _, count in rest)
    return shown
