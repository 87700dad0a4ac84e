"""``index.html`` of a training run: curves, clips by step, weights and spec."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import yaml

from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.runs.planning.table import duration, size
from rayreel.runs.report.pages import render_page
from rayreel.runs.training.report_data import ReportedRun, read_run
from rayreel.runs.training.report_plots import Lines, loss_plot, other_plots, smoothed
from rayreel.training.validation import ValidationResult

PAGE_FILE = "index.html"

# Steps at the end that tell how fast a run is.
_RECENT = 100


class _Row(NamedTuple):
    """Clips of one validation row.

    Attributes:
        name: Of the row.
        prompt: As it was last rendered.
        seed: Of its noise.
        results: By step; ``None`` where a step had no such row.
    """

    name: str
    prompt: str
    seed: int
    results: list[tuple[int, ValidationResult | None]]


def write_report(run: str) -> str:
    """Write the page of a run; it may go on meanwhile.

    Args:
        run: Its directory, as a folder or a URI.

    Returns:
        Path or URI of the page.

    Raises:
        SpecError: If it is no directory of a training run.
        StorageError: If the storage does not answer.
    """
    storage = Storage(run)
    found = read_run(storage)
    rows = _rows(found.clips)
    page = render_page(
        "training.html.j2",
        title=found.title,
        summary=_summary(found.spec),
        state=_state(found),
        totals=_totals(found),
        loss=loss_plot(found.lines) if found.lines else None,
        plots=other_plots(found.lines, found.spec) if found.lines else {},
        rows=rows,
        failed=sum(result.error is not None for _, result in _each(rows)),
        weights={name: size(num_bytes) for name, num_bytes in found.weights.items()},
        more_weights=found.more_weights,
        spec=yaml.safe_dump(
            found.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
        ),
        versions=found.versions,
    )
    storage.write_bytes(PAGE_FILE, page)
    return storage.join(PAGE_FILE)


def _summary(spec: TrainSpec) -> str:
    """What is trained, in a line."""
    model = "the tiny model"
    if spec.model != "tiny":
        main = spec.model.checkpoint or spec.model.transformer
        model = str(main).rpartition("/")[2]
    what = f"adapter of rank {spec.lora.rank} for" if spec.mode == "lora" else "all weights of"
    batch = spec.optimization.batch_size
    samples = f"{batch} samples" if batch > 1 else "1 sample"
    taught = ", taught by the model itself" if spec.distillation else ""
    return (
        f"{what} {model}{taught}, strategy {spec.strategy.name}, {samples} a step, "
        f"from {spec.dataset}, seed {spec.seed}"
    )


def _state(run: ReportedRun) -> str:
    """How far it is."""
    steps = f"step {run.step:,} of {run.spec.optimization.steps:,}"
    if run.is_finished:
        return f"finished: {steps}"
    if not run.lines:
        return f"{steps}: " + ("it is starting" if run.is_held else "it has not begun to train")
    last = datetime.fromtimestamp(run.lines[-1]["time"], UTC)
    when = f"at {last:%Y-%m-%d %H:%M:%S} UTC"
    if run.is_held:
        return f"training: {steps} {when}, {_left(run)} to go"
    return f"stopped: {steps} {when}; the same command goes on from the last checkpoint"


def _left(run: ReportedRun) -> str:
    seconds = np.mean([line["seconds"] for line in run.lines[-_RECENT:]])
    return duration(float(seconds) * (run.spec.optimization.steps - run.step))


def _totals(run: ReportedRun) -> dict[str, str]:
    lines = run.lines
    if not lines:
        return {}
    recent = lines[-_RECENT:]
    seconds, waited = (sum(line[name] for line in recent) for name in ("seconds", "wait_seconds"))
    tokens = sum(line["tokens"] for line in recent)
    losses = smoothed(np.array([line["loss"] for line in lines], np.float64))
    totals = {
        "steps": f"{run.step:,}",
        "samples seen": f"{sum(len(line['samples']) for line in lines):,}",
        "epochs begun": f"{lines[-1]['epoch'] + 1:,}",
        "loss, smoothed": f"{losses[-1]:.4g}",
        "seconds per step": f"{seconds / len(recent):.3g}",
        "tokens per second": f"{tokens / seconds:,.0f}" if seconds else "",
        "waiting for data": f"{waited / seconds:.1%}" if seconds else "",
        "utilisation": _utilisation(recent),
        "memory": f"{max(line['memory_gib'] for line in lines):.3g} GiB",
        "time of steps": duration(sum(line["seconds"] for line in lines)),
    }
    return {name: value for name, value in totals.items() if value}


def _utilisation(lines: Lines) -> str:
    used = [line["utilisation"] for line in lines if line.get("utilisation") is not None]
    return f"{sum(used) / len(used):.1%}" if used else ""


def _rows(clips: Mapping[int, Sequence[ValidationResult]]) -> list[_Row]:
    """Results of each row, rows in the order of the last step that had them."""
    by_name: dict[str, dict[int, ValidationResult]] = {}
    for step in sorted(clips, reverse=True):
        for result in clips[step]:
            by_name.setdefault(result.name, {})[step] = result
    rows = []
    for name, results in by_name.items():
        last = results[max(results)]
        by_step: list[tuple[int, Any]] = [(step, results.get(step)) for step in sorted(clips)]
        rows.append(_Row(name, last.prompt, last.seed, by_step))
    return rows


def _each(rows: Sequence[_Row]) -> list[tuple[int, ValidationResult]]:
    return [(step, result) for row in rows for step, result in row.results if result]
