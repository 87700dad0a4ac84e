"""A render job as it is written, with its paths made absolute."""

import json
from pathlib import Path

import pytest
import yaml

from rayreel.config.jobs import AdapterSpec, ModelSpec
from rayreel.errors import SpecError
from rayreel.runs.spec import read_render_spec

MODEL = {
    "checkpoint": "weights/a.safetensors",
    "gemma": "/models/gemma",
    "upsampler": "s3://bucket/up.safetensors",
    "distilled_lora": {"path": "weights/b.safetensors"},
    "loras": [{"path": "~/c.safetensors", "strength": 0.5}],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for specs, beside the current one."""
    current, folder = tmp_path / "current", tmp_path / "specs"
    current.mkdir()
    folder.mkdir()
    monkeypatch.chdir(current)
    return folder


def write(folder: Path, **fields) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({"prompts": "list.jsonl", **fields}), "utf-8")
    return str(path)


def test_prompts_start_at_the_spec_and_the_output_at_the_current_folder(folder):
    spec = read_render_spec(write(folder, output="runs/a"))
    assert spec.prompts == str(folder / "list.jsonl")
    assert spec.output == str(Path.cwd() / "runs" / "a")


def test_a_spec_can_be_named_by_a_relative_path(folder):
    write(folder)
    assert read_render_spec("../specs/job.yaml").prompts.endswith("/current/../specs/list.jsonl")


def test_weights_start_at_the_spec(folder):
    model = read_render_spec(write(folder, model=MODEL)).model
    assert model == ModelSpec(
        checkpoint=str(folder / "weights" / "a.safetensors"),
        gemma="/models/gemma",
        upsampler="s3://bucket/up.safetensors",
        distilled_lora=AdapterSpec(path=str(folder / "weights" / "b.safetensors")),
        loras=(AdapterSpec(path=str(Path.home() / "c.safetensors"), strength=0.5),),
    )


def test_uris_stay_as_they_are(folder):
    spec = read_render_spec(write(folder, prompts="s3://bucket/a.jsonl", output="gs://bucket/run"))
    assert (spec.prompts, spec.output) == ("s3://bucket/a.jsonl", "gs://bucket/run")


@pytest.mark.parametrize("name", ["list.jsonl", "list.csv", "list.parquet", "LIST.CSV"])
def test_a_bare_prompt_list_is_a_job_with_defaults(folder, name):
    spec = read_render_spec(f"../specs/{name}")
    assert Path(spec.prompts).resolve() == folder / name
    assert (spec.model, spec.output) == ("tiny", str(Path.cwd() / "runs" / "render"))


def test_a_bare_prompt_list_can_be_a_uri(folder):
    assert read_render_spec("s3://bucket/a.jsonl").prompts == "s3://bucket/a.jsonl"


def test_weights_of_a_bare_prompt_list_start_at_the_current_folder(folder):
    overrides = ["model.checkpoint=a.safetensors", "model.gemma=gemma"]
    model = read_render_spec(str(folder / "list.csv"), overrides).model
    assert model == ModelSpec(
        checkpoint=str(Path.cwd() / "a.safetensors"), gemma=str(Path.cwd() / "gemma")
    )


def test_the_output_option_wins_over_override_and_file(folder):
    path = write(folder, output="runs/a")
    assert read_render_spec(path, ["output=runs/b"]).output.endswith("runs/b")
    assert read_render_spec(path, ["output=runs/b"], "runs/c").output.endswith("runs/c")


def test_faults_name_the_file(folder):
    with pytest.raises(SpecError, match=r"job\.yaml: field 'promts': unknown; nearest is 'prompts"):
        read_render_spec(write(folder, promts="a"))
    with pytest.raises(SpecError, match=r"list\.csv: field 'sed': unknown; nearest is 'seed'"):
        read_render_spec("list.csv", ["sed=1"])


@pytest.mark.parametrize("name", ["job.json", "job", "job.txt"])
def test_other_files_are_refused(name):
    with pytest.raises(SpecError, match=r"expected a spec \(\.yaml, \.yml\) or a prompt list"):
        read_render_spec(name)


def test_a_resolved_spec_reads_back_as_itself(folder):
    spec = read_render_spec(write(folder, model=MODEL, defaults={"steps": 4}, seed=3))
    again = folder / "resolved.yaml"
    again.write_text(json.dumps(spec.model_dump(mode="json")), "utf-8")
    assert read_render_spec(str(again)) == spec
