"""Render jobs through the command line, on the run-wide cluster."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.data.ledger import Ledger, LedgerEntry
from rayreel.data.storage import Storage

DEFAULTS = {"width": 64, "height": 64, "num_frames": 9, "steps": 2}


@dataclass(frozen=True)
class Job:
    """A spec in a folder, and its run directory."""

    spec: Path
    output: Path

    def render(self, *options: str):
        """What the command came to: exit code, stdout and stderr."""
        return CliRunner().invoke(app, ["render", str(self.spec), "-o", str(self.output), *options])

    @property
    def entries(self) -> dict[str, LedgerEntry]:
        return Ledger(Storage(self.output)).read()

    @property
    def lines(self) -> list[str]:
        """Item ids of all lines of the ledger."""
        # A kill may leave a file that was being written.
        parts = sorted((self.output / "ledger").glob("[!~]*.jsonl"))
        lines = [line for part in parts for line in part.read_text().splitlines()]
        return [json.loads(line)["item_id"] for line in lines]

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Lines of ``results.parquet`` by the row's name."""
        rows = pq.read_table(self.output / "results.parquet").to_pylist()
        return {row["name"]: row for row in rows}

    @property
    def files(self) -> dict[str, tuple[int, bytes]]:
        """Time and content of every clip."""
        clips = sorted((self.output / "videos").iterdir())
        return {clip.name: (clip.stat().st_mtime_ns, clip.read_bytes()) for clip in clips}


def write_job(folder: Path, rows: Sequence[dict[str, Any]], **fields) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    spec = {"prompts": "list.jsonl", "model": "tiny", "defaults": DEFAULTS, **fields}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return Job(folder / "spec.yaml", folder / "run")


def row(name: str, **fields) -> dict[str, Any]:
    return {"id": name, "prompt": f"A picture of {name}.", **fields}


GOOD_ROWS = [
    row("fox", seed=1),
    {**row("fox", seed=1), "id": "fox-again"},
    row("harbour", pipeline="one_stage", width=96, num_frames=17, fps=16),
    row("storm", pipeline="distilled", height=128),
    row("sunset", pipeline="one_stage", images=[{"path": "sunset.png"}]),
    row("bridge", fps=23.976, images=[{"path": "sunset.png", "frame": 8, "strength": 0.8}]),
    row("silent", pipeline="one_stage", audio=False),
]
DAMAGED_ROW = row("damaged", pipeline="one_stage", seed=5, images=[{"path": "damaged.png"}])


def write_images(folder: Path) -> None:
    """A picture, and one that breaks off."""
    data = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((80, 48)).save(data, "PNG")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sunset.png").write_bytes(data.getvalue())
    (folder / "damaged.png").write_bytes(data.getvalue()[:-60])


@pytest.fixture(scope="session")
def rendered(ray_cluster, tmp_path_factory):
    """All kinds of rows and a damaged one, by a worker for each stage: the job and what it said."""
    folder = tmp_path_factory.mktemp("rendered")
    write_images(folder)
    job = write_job(folder, [*GOOD_ROWS, DAMAGED_ROW], placement="split", workers={"batch_size": 1})
    return job, job.render()
