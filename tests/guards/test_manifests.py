"""Every spec and every prompt list of the repository is valid."""

from pathlib import Path
from typing import get_args

import pytest

from rayreel.config.jobs import ModelSpec, StageName
from rayreel.config.load import load_spec
from rayreel.pipelines import PIPELINE_CLASSES
from rayreel.pipelines.choice import GENERAL
from rayreel.runs.bench import BenchSpec
from rayreel.runs.render import plan
from rayreel.runs.spec import read_model, read_render_spec

MANIFESTS = Path(__file__).parents[2] / "manifests"
BENCHES = sorted((MANIFESTS / "bench").glob("*.yaml"))
MODELS = sorted((MANIFESTS / "models").glob("*.yaml"))
RENDERS = sorted({*MANIFESTS.rglob("*.yaml"), *MANIFESTS.rglob("*.jsonl")} - {*BENCHES, *MODELS})
# Names of the published files, and of the folder of both generations' text encoder.
PUBLISHED = {
    "gemma-3-12b-it-qat-q4_0-unquantized",
    *(
        f"ltx-2-19b-{kind}{fp8}.safetensors"
        for kind in ("dev", "distilled")
        for fp8 in ("", "-fp8")
    ),
    "ltx-2-19b-distilled-lora-384.safetensors",
    "ltx-2-spatial-upscaler-x2-1.0.safetensors",
    *(f"ltx-2.3-22b-{kind}.safetensors" for kind in ("dev", "distilled", "distilled-1.1")),
    *(f"ltx-2.3-22b-distilled-lora-384{version}.safetensors" for version in ("", "-1.1")),
    *(f"ltx-2.3-spatial-upscaler-x2-1.{minor}.safetensors" for minor in (0, 1)),
}


def name(path: Path) -> str:
    return str(path.relative_to(MANIFESTS))


@pytest.mark.parametrize("path", RENDERS, ids=name)
def test_render_jobs_are_valid(path):
    _, rows = plan(read_render_spec(str(path)))
    assert rows


@pytest.mark.parametrize("path", BENCHES, ids=name)
def test_benchmarks_are_valid(path):
    assert load_spec(path, BenchSpec).cases


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_model_specs_name_published_files_in_one_folder(path):
    setup = read_model(str(path), ["model.folder=/weights"])
    assert isinstance(setup.model, ModelSpec)
    adapter = setup.model.distilled_lora
    files = [setup.model.checkpoint, setup.model.gemma, setup.model.upsampler]
    paths = [Path(file) for file in [*files, adapter and adapter.path] if file]
    assert {file.parent for file in paths} == {Path("/weights")}
    assert {file.name for file in paths} <= PUBLISHED
    pipeline = PIPELINE_CLASSES[setup.defaults.pipeline or GENERAL].traits
    assert all(getattr(setup.model, need) for need in pipeline.needs)
    assert {stage: setup.stage(stage).gpus for stage in setup.stages}.keys() == {
        *get_args(StageName)
    }


def test_every_file_is_of_a_kind_that_is_checked():
    kinds = {path.suffix for path in MANIFESTS.rglob("*") if path.is_file()}
    assert kinds <= {".yaml", ".jsonl", ".md", ".png", ".jpg"}
