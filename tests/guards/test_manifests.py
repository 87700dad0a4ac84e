"""Every spec and every prompt list of the repository is valid."""

from pathlib import Path

import pytest
from jobs.bench import BenchSpec

from rayreel.config.load import load_spec
from rayreel.runs.render import plan
from rayreel.runs.spec import read_render_spec

MANIFESTS = Path(__file__).parents[2] / "manifests"
BENCHES = sorted((MANIFESTS / "bench").glob("*.yaml"))
RENDERS = sorted({*MANIFESTS.rglob("*.yaml"), *MANIFESTS.rglob("*.jsonl")} - {*BENCHES})


def name(path: Path) -> str:
    return str(path.relative_to(MANIFESTS))


@pytest.mark.parametrize("path", RENDERS, ids=name)
def test_render_jobs_are_valid(path):
    _, rows = plan(read_render_spec(str(path)))
    assert rows


@pytest.mark.parametrize("path", BENCHES, ids=name)
def test_benchmarks_are_valid(path):
    assert load_spec(path, BenchSpec).cases


def test_every_file_is_of_a_kind_that_is_checked():
    kinds = {path.suffix for path in MANIFESTS.rglob("*") if path.is_file()}
    assert kinds <= {".yaml", ".jsonl", ".md", ".png", ".jpg"}
