"""Curves of a training run: what was measured faintly, its course strongly."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from rayreel.config.train import TrainSpec
from rayreel.runs.report.plots import FILL, INK, plot_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = Sequence[Mapping[str, Any]]
Values = NDArray[np.float64]

# From little noise to much.
_LEVELS = ("#4c8bf5", "#2ba88a", "#e0932e", "#d9534f")
_VIDEO, _AUDIO = "#2ba88a", "#e0932e"
_GREY = "#9aa0a6"

# A run of fewer steps is drawn as it was measured.
_FEW = 24
# Standard deviation of the smoothing, as a share of the run.
_SMOOTHING = 1 / 60
# A page must not grow with the run.
_MOST_POINTS = 600
_DECADE = 10.0

_WHOLE = 14.8
_HEIGHT = 2.6


class _Curve(NamedTuple):
    """What is drawn as one line; ``name`` is empty where it needs none."""

    name: str
    values: Values
    colour: str


def loss_plot(lines: Lines) -> str:
    """Markup of the loss, and of each stream's part of it where there are two.

    Args:
        lines: Of the metrics, at least one.
    """
    curves = [_Curve("loss", _column(lines, "loss"), FILL)]
    if any("loss_video" in line for line in lines) and any("loss_audio" in line for line in lines):
        curves = [
            _Curve("video", _column(lines, "loss_video"), _VIDEO),
            _Curve("audio", _column(lines, "loss_audio"), _AUDIO),
            curves[0]._replace(name="both"),
        ]
    return _plot(lines, curves, width=_WHOLE, height=3.6)


def other_plots(lines: Lines, spec: TrainSpec) -> dict[str, str]:
    """Markup of the plots that there is something to show in, by title.

    Args:
        lines: Of the metrics, at least one.
        spec: Of the run.
    """
    plots = {}
    if bins := sorted({name for line in lines for name in line.get("sigma_loss", ())}):
        levels = [
            _Curve(name, _sigma_column(lines, name), _LEVELS[place % len(_LEVELS)])
            for place, name in enumerate(bins)
        ]
        plots["Loss by noise level"] = _plot(lines, levels)
    limit = spec.optimization.max_grad_norm
    plots["Norm of the gradients"] = _plot(
        lines, [_Curve("", _column(lines, "grad_norm"), FILL)], limit=limit or None
    )
    plots["Learning rate"] = _plot(
        lines, [_Curve("", _column(lines, "learning_rate"), FILL)], from_zero=True, exact=True
    )
    plots["Tokens per second"] = _plot(
        lines, [_Curve("", _column(lines, "tokens_per_s"), FILL)], from_zero=True
    )
    waiting = [
        _Curve("whole step", _column(lines, "seconds"), FILL),
        _Curve("of it, waiting for data", _column(lines, "wait_seconds"), _AUDIO),
    ]
    plots["Seconds per step"] = _plot(lines, waiting, from_zero=True)
    used = 100 * _column(lines, "utilisation")
    if np.isfinite(used).any():
        plots["Utilisation, % of what matrix products reach"] = _plot(
            lines, [_Curve("", used, FILL)], from_zero=True
        )
    plots["Memory, GiB"] = _plot(
        lines, [_Curve("", _column(lines, "memory_gib"), FILL)], from_zero=True, exact=True
    )
    return plots


def smoothed(values: Values) -> Values:
    """Course of some values, each averaged with those around it; NaN where there are none.

    Args:
        values: One of each step, NaN where it has none.
    """
    width = max(1.0, len(values) * _SMOOTHING)
    there = np.isfinite(values)
    total, weight = (
        gaussian_filter1d(part, width, mode="constant")
        for part in (np.where(there, values, 0.0), there.astype(np.float64))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 1e-3, total / weight, np.nan)


def _plot(
    lines: Lines,
    curves: Sequence[_Curve],
    *,
    width: float = 7.2,
    height: float = _HEIGHT,
    limit: float | None = None,
    from_zero: bool = False,
    exact: bool = False,
) -> str:
    """Markup of some curves over the steps.

    Args:
        lines: Of the metrics.
        curves: The last is drawn on top.
        width: In inches.
        height: In inches.
        limit: A value to draw across.
        from_zero: Whether the axis begins at 0.
        exact: Whether values are not noisy, and drawn as they are.
    """
    steps = np.array([line["step"] for line in lines], np.float64)

    def draw(axes: "Axes") -> None:
        courses = []
        for curve in curves:
            few = np.isfinite(curve.values).sum() < _FEW
            course = curve.values if few or exact else smoothed(curve.values)
            if course is not curve.values:
                axes.plot(*_extremes(steps, curve.values), color=curve.colour, alpha=0.22, lw=0.8)
            there = np.isfinite(course)
            axes.plot(
                *_thinned(steps[there], course[there]),
                color=curve.colour,
                label=curve.name or None,
                lw=1.9,
                marker="o" if few else None,
                markersize=3.5,
            )
            courses.append(course[there])
        shown = np.concatenate(courses)
        if limit is not None:
            axes.axhline(limit, color=INK, alpha=0.5, lw=1, ls="--", label=f"cut to {limit:g}")
        _scale(axes, shown, from_zero=from_zero)
        axes.set_xlim(*_ends(steps))
        axes.locator_params(axis="x", integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("optimiser steps")
        axes.grid(axis="y", color=INK, alpha=0.1, lw=0.8)
        if limit is not None or any(curve.name for curve in curves):
            # Above the axes, where no curve is.
            axes.legend(
                frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=5, fontsize=9
            )

    return plot_svg(height, draw, width=width)


def _scale(axes: "Axes", shown: Values, *, from_zero: bool) -> None:
    """A logarithmic axis where values span decades, and linear ones of readable numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415 - see plot_svg

    if len(shown) and not from_zero and shown.min() > 0 and shown.max() / shown.min() > _DECADE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    if from_zero:
        axes.set_ylim(0, 1.1 * axes.dataLim.y1 or 1)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.locator_params(axis="y", nbins=5)


def _ends(steps: Values) -> tuple[float, float]:
    return (steps[0] - 1, steps[-1]) if len(steps) > 1 else (steps[0] - 1, steps[0] + 1)


def _column(lines: Lines, name: str) -> Values:
    return np.array([_number(line.get(name)) for line in lines], np.float64)


def _sigma_column(lines: Lines, name: str) -> Values:
    found = [line.get("sigma_loss", {}).get(name) for line in lines]
    return np.array([_number(value) for value in found], np.float64)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _extremes(steps: Values, values: Values) -> tuple[Values, Values]:
    """Least and greatest value of each part of a long run."""
    there = np.isfinite(values)
    steps, values = steps[there], values[there]
    if len(values) <= 2 * _MOST_POINTS:
        return steps, values
    parts = np.array_split(np.arange(len(values)), _MOST_POINTS)
    kept = [place for part in parts for place in sorted(
        (part[values[part].argmin()], part[values[part].argmax()])
    )]  # fmt: skip
    return steps[kept], values[kept]


def _thinned(steps: Values, values: Values) -> tuple[Values, Values]:
    if len(steps) <= _MOST_POINTS:
        return steps, values
    kept = np.linspace(0, len(steps) - 1, _MOST_POINTS).round().astype(int)
    return steps[kept], values[kept]
