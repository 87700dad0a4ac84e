"""A render job as it is written, with its paths made absolute."""

import json
from pathlib import Path

import pytest
import yaml

from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelSpec
from rayreel.errors import SpecError
from rayreel.requests.spec import read_model, read_render_spec

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


@pytest.mark.parametrize("name", ["job.toml", "job", "job.txt"])
def test_other_files_are_refused(name):
    with pytest.raises(SpecError, match=r"expected a spec \(\.yaml, \.yml\) or a prompt list"):
        read_render_spec(name)


def test_a_resolved_spec_reads_back_as_itself(folder):
    spec = read_render_spec(write(folder, model=MODEL, defaults={"steps": 4}, seed=3))
    again = folder / "resolved.yaml"
    again.write_text(json.dumps(spec.model_dump(mode="json")), "utf-8")
    assert read_render_spec(str(again)) == spec


@pytest.fixture
def model_spec(folder):
    """A model spec in a folder of its own, with weights that are named from elsewhere."""
    path = folder / "models" / "set.yaml"
    path.parent.mkdir()
    fields = {
        "model": {"folder": "../weights", "checkpoint": "a.safetensors", "gemma": "gemma"},
        "defaults": {"pipeline": "one_stage", "steps": 3},
        "placement": "split",
        "stages": {"text": {"gpus": 0.5}},
    }
    path.write_text(yaml.safe_dump(fields), "utf-8")
    return path


WEIGHTS = "weights/a.safetensors"


def test_a_model_spec_brings_model_resources_and_defaults(folder, model_spec):
    job = write(folder, defaults={"steps": 5}, stages={"decode": {"gpus": 0}})
    spec = read_render_spec(job, model=str(model_spec))
    assert isinstance(spec.model, ModelSpec)
    assert Path(spec.model.checkpoint or "").resolve() == folder / WEIGHTS
    assert (spec.defaults.pipeline, spec.defaults.steps) == ("one_stage", 5)
    assert (spec.stage("text").gpus, spec.stage("decode").gpus) == (0.5, 0)


def test_a_job_can_name_its_model_spec(folder, model_spec):
    spec = read_render_spec(write(folder, model="models/set.yaml"))
    assert isinstance(spec.model, ModelSpec)
    assert Path(spec.model.gemma).resolve() == folder / "weights" / "gemma"


def test_the_model_option_wins_over_the_job_s_model(folder, model_spec):
    assert read_render_spec(write(folder, model=MODEL), model="tiny").model == "tiny"


def test_a_model_spec_can_be_pointed_at_a_folder(folder, model_spec):
    setup = read_model(str(model_spec), ["model.folder=/elsewhere"])
    assert isinstance(setup.model, ModelSpec)
    assert setup.model.checkpoint == "/elsewhere/a.safetensors"


def test_a_render_spec_serves_as_a_model_spec(folder):
    assert read_model(write(folder, model="tiny", output="runs/a")).model == "tiny"


def test_a_typing_error_in_a_model_spec_is_named(folder, model_spec):
    model_spec.write_text("model: tiny\nplacment: split\n", "utf-8")
    with pytest.raises(SpecError, match="'placment': unknown; nearest is 'placement'"):
        read_render_spec(write(folder), model=str(model_spec))


@pytest.mark.parametrize("name", ["nowhere", "a.safetensors"])
def test_a_model_that_is_nothing_known_is_refused(folder, name):
    with pytest.raises(
        SpecError, match="expected 'tiny', a folder of weight files or a model spec"
    ):
        read_render_spec(write(folder), model=name)
