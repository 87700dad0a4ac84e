"""Training jobs through the command line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from rayreel.cli import app
from tests.training.runs import Line, lines


@dataclass(frozen=True)
class TrainJobFiles:
    """A spec in a folder, and where its run goes.

    Attributes:
        spec: The file.
        output: Folder or URI of the run.
    """

    spec: Path
    output: str

    def run(self, *options: str) -> Any:
        """What the command came to: exit code, stdout and stderr."""
        return CliRunner().invoke(app, ["train", str(self.spec), "-o", self.output, *options])

    @property
    def lines(self) -> list[Line]:
        """Of the metrics."""
        return lines(self.output)

    @property
    def clips(self) -> dict[str, list[dict[str, Any]]]:
        """Results of validations, by step."""
        files = sorted(Path(self.output, "validation").glob("*.json"))
        return {file.stem: json.loads(file.read_text("utf-8")) for file in files}


def write_job(folder: Path, dataset: Path, output: Path | str, **values: Any) -> TrainJobFiles:
    """A small job on the tiny model; ``values`` win."""
    given = {
        "dataset": str(dataset),
        "optimization": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "schedule": "constant",
        },
        "checkpoints": {"interval": 2},
        **values,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.yaml").write_text(yaml.safe_dump(given))
    return TrainJobFiles(folder / "train.yaml", str(output))
