"""Runs whose clips were drawn instead of rendered, so that all of them are right."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from rayreel.config.evaluate import EvalSpec
from rayreel.data.ledger import Ledger, LedgerEntry
from rayreel.data.storage import Storage
from rayreel.media.mux import write_clip
from rayreel.requests.spec import read_eval_spec
from rayreel.runs.evaluation.scenes import render_job, suite_rows, write_job
from rayreel.runs.opened import plan
from rayreel.world.dataset import Format, make_clip
from rayreel.world.scene import Scene


def write_spec(folder: Path, *suites: dict[str, Any], **fields: Any) -> Path:
    path = folder / "eval.yaml"
    path.write_text(yaml.safe_dump({"suites": list(suites), **fields}))
    return path


def draw_run(path: Path, output: Path) -> EvalSpec:
    """Draw what an eval spec asks for, as a render job would leave it behind."""
    spec = read_eval_spec(str(path), output=str(output))
    job, rows = render_job(spec), suite_rows(spec)
    write_job(job, rows)
    ledger = Ledger(Storage(output))
    (output / "videos").mkdir(exist_ok=True)
    for planned, row in zip(plan(job)[1], rows, strict=True):
        name = f"videos/{planned.item_id}.mp4"
        write_clip(output / name, drawn(row.asked.scene, planned.request.num_frames))
        ledger.append(entry(planned.item_id, name))
    return spec


def drawn(scene: Scene, num_frames: int = 25):
    return make_clip(scene, Format(num_frames=num_frames))


def entry(item_id: str, name: str) -> LedgerEntry:
    return LedgerEntry(
        item_id=item_id,
        status="done",
        attempt=1,
        output=name,
        sha256="ab" * 32,
        num_bytes=1000,
        worker="node-1:42",
        finished_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
