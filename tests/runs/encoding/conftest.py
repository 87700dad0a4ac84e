"""Encode jobs, through the command line on the run-wide cluster or in this process."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.cluster.connect import Capacity
from rayreel.config.encode import EncodeSpec, EncodeStageName
from rayreel.data.reader import LatentDataset
from rayreel.pipelines.devices import Device
from rayreel.requests.spec import read_encode_spec
from rayreel.runs.encode import EncodeSummary, encode
from rayreel.runs.encoding.explain import explain
from rayreel.runs.encoding.opened import EncodeRun
from rayreel.runs.encoding.pools import encode_devices, encode_pool
from rayreel.runs.encoding.tries import Batches, I
from rayreel.runs.left import Retry
from rayreel.runs.passes import failed_entry
from rayreel.stages.base import ItemFailure, run_stage
from tests.corpus import CorpusClip, write_corpus

WORKERS = {"replicas": 2, "cpus": 1, "batch_size": 3}


@dataclass
class InProcess:
    """Workers that are this process: stages alone, without Ray."""

    run: EncodeRun
    hardware: str = ""
    devices: dict[EncodeStageName, Device] = field(default_factory=dict)
    stages: dict[str, Any] = field(default_factory=dict)

    def work(
        self, name: EncodeStageName, items: Sequence[I], batches: Batches[I]
    ) -> Iterator[I | ItemFailure]:
        free = Capacity(cpus=2, gpus=0, nodes=())
        self.devices = encode_devices(self.run.spec, free)
        if name not in self.stages:
            (self.stages[name],) = encode_pool(self.run.spec, name, self.devices, free).stages
            self.stages[name].setup()
        for batch in batches(items, 2):
            yield from run_stage(self.stages[name], batch)

    def back_offs(self) -> Iterator[float]:
        yield from [0.0] * self.run.spec.attempts

    def failed(self, failure: ItemFailure) -> bool:
        self.run.ledger.append(failed_entry(failure))
        return failure.retryable and failure.attempt < self.run.spec.attempts

    def close(self) -> None:
        self.stages.clear()


@dataclass(frozen=True)
class EncodeJob:
    """A spec in a folder, and the dataset that comes of it."""

    spec: Path
    output: Path

    def run(self, *options: str):
        """What the command came to, on the cluster: exit code, stdout and stderr."""
        return CliRunner().invoke(app, ["encode", str(self.spec), "-o", str(self.output), *options])

    def read(self, *settings: str) -> EncodeSpec:
        return read_encode_spec(str(self.spec), settings, str(self.output))

    def encode(self, *settings: str, retry: Retry = "none") -> EncodeSummary:
        """What the job came to in this process, with some fields set otherwise."""
        return encode(self.read(*settings), retry=retry, workers=InProcess)

    def explain(self, *settings: str) -> str:
        return explain(self.read(*settings))

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Lines of ``results.parquet`` by name, with the scene where it is not the first."""
        rows = pq.read_table(self.output / "results.parquet").to_pylist()
        return {
            row["name"] if not row["scene"] else f"{row['name']}/{row['scene']}": row
            for row in rows
        }

    @property
    def shards(self) -> dict[str, bytes]:
        """Content of every shard, and of what names them."""
        files = [*(self.output / "shards").iterdir(), self.output / "dataset.json"]
        return {file.name: file.read_bytes() for file in files}

    @property
    def dataset(self) -> LatentDataset:
        return LatentDataset(self.output)

    @property
    def records(self) -> list[tuple[str, str]]:
        """Kind and key of every record of the store, as often as it is there."""
        parts = sorted((self.output / "records").iterdir())
        rows = [
            row
            for part in parts
            for row in pq.read_table(part, columns=["kind", "key"]).to_pylist()
        ]
        return [(row["kind"], row["key"]) for row in rows]


def write_job(folder: Path, values: Mapping[str, Any]) -> EncodeJob:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump({"workers": WORKERS, **values}))
    return EncodeJob(folder / "spec.yaml", folder / "out")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[CorpusClip]]:
    """A folder with one of everything, and what is in it."""
    folder = tmp_path_factory.mktemp("corpus")
    return folder, write_corpus(folder)
