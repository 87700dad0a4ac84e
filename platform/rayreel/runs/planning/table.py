"""A plan for the terminal, alone or beside what the run came to."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rayreel.runs.planning.plan import Actual, Plan, PoolPlan, StagePlan

_WIDTH = 100
_MOST_SHAPES = 8
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_UNKNOWN = "?"


def as_table(plan: Plan) -> str:
    """What a run is expected to come to, as lines of text."""
    stages = table_text(
        ("stage", "actors", "batch", "s per item", "", "busy", "items/s"),
        [line for pool in _all_pools(plan) for line in _pool_lines(pool)],
    )
    totals = table_text(("expected", ""), _totals(plan))
    marked = any(pool.bottleneck for pool in plan.pools) and len(plan.pools) > 1
    notes = [*["* the bottleneck"] * marked, *(f"note: {note}" for note in plan.notes)]
    return "\n".join([*_head(plan), "", stages, "", totals, *notes])


def compare(plan: Plan, actual: Actual) -> str:
    """What was expected of a run beside what it came to, as lines of text."""
    pairs: list[tuple[str, float | None, float | None, Callable[[Any], str]]] = [
        ("clips", plan.left, actual.clips, str),
        *(
            (f"{stage.name}, s per item", stage.seconds, actual.stages.get(stage.name), _number)
            for pool in _all_pools(plan)
            for stage in pool.stages
        ),
        ("clips/s", plan.throughput, actual.throughput, _number),
        ("time of texts", plan.text_s, actual.text_s, duration),
        ("time of clips", plan.render_s, actual.render_s, duration),
        ("time in all", plan.seconds, actual.text_s + actual.render_s, duration),
        ("GPU-hours", plan.gpu_hours, actual.gpu_hours, _number),
        ("size of clips", plan.clip_bytes, actual.clip_bytes, size),
    ]
    lines = [
        (name, told(planned), told(took), _off(planned, took))
        for name, planned, took, told in pairs
    ]
    return table_text(("", "planned", "actual", "off by"), lines)


def duration(seconds: float | None) -> str:
    """A time for people: ``2 d 3 h``, ``4 h 05 min``, ``3 min 20 s``, ``8.1 s``."""
    if seconds is None:
        return _UNKNOWN
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {rest_min:02} min" if hours else f"{minutes} min {rest_s:02} s"


def size(num_bytes: float | None) -> str:
    """An amount of storage for people, in powers of 1000."""
    if num_bytes is None:
        return _UNKNOWN
    power = 0
    while num_bytes >= 1000 and power < len(_UNITS) - 1:
        num_bytes, power = num_bytes / 1000, power + 1
    return f"{num_bytes:.3g} {_UNITS[power]}"


def _head(plan: Plan) -> Iterator[str]:
    yield (
        f"{plan.rows} rows, {plan.clips} clips: {plan.finished} finished, {plan.left} left; "
        f"texts: {plan.texts_known} known, {plan.texts_new} new"
    )
    for shape in plan.shapes[:_MOST_SHAPES]:
        yield f"  {shape.clips} x {shape.name}: batch {shape.batch}, {shape.reason}"
    if rest := plan.shapes[_MOST_SHAPES:]:
        yield f"  {sum(shape.clips for shape in rest)} more of {len(rest)} other shapes"
    yield f"placement {plan.placement}: {plan.reason}"


def _all_pools(plan: Plan) -> Sequence[PoolPlan]:
    return (plan.text, *plan.pools) if plan.text else plan.pools


def _pool_lines(pool: PoolPlan) -> Iterator[tuple[str, ...]]:
    """A line for a pool, and where stages share its actors one for each of them."""
    alone = len(pool.stages) == 1
    # Where all stages share actors there is no other pool that could be faster.
    marked = pool.bottleneck and alone
    batches = sorted({pool.batches[0], pool.batches[-1]})
    yield (
        f"{pool.name} *" if marked else pool.name,
        f"{pool.replicas} x ({pool.cpus:g} CPU, {pool.gpus:g} GPU)",
        "-".join(map(str, batches)),
        _number(pool.seconds),
        pool.stages[0].basis if alone else "",
        _UNKNOWN if pool.utilisation is None else f"{pool.utilisation:.0%}",
        _number(pool.rate),
    )
    if not alone:
        yield from map(_stage_line, pool.stages)


def _stage_line(stage: StagePlan) -> tuple[str, ...]:
    return f"  {stage.name}", "", "", _number(stage.seconds), stage.basis, "", ""


def _totals(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "throughput", f"{_number(plan.throughput)} clips/s"
    passes = f"texts {duration(plan.text_s)}, clips {duration(plan.render_s)}"
    yield "time", f"{duration(plan.seconds)} ({passes})"
    yield "GPU-hours", _number(plan.gpu_hours)
    basis = "measured" if plan.clip_bytes_measured else "guessed from size and length"
    yield "storage", f"clips {size(plan.clip_bytes)} ({basis})"
    if plan.text_bytes:
        yield "", f"texts {size(plan.text_bytes)}"
    if plan.latent_bytes:
        yield "", f"latents {size(plan.latent_bytes)}"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3g}"


def _off(planned: float | None, actual: float | None) -> str:
    if not planned or actual is None:
        return ""
    return f"{actual / planned - 1:+.0%}"


def table_text(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Lines under a head, as text for the terminal."""
    table = Table(*head, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for line in lines:
        table.add_row(*line)
    text = io.StringIO()
    Console(file=text, width=_WIDTH, color_system=None).print(table, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
