"""The same weights in every layout of published sets, rendered with no flag but the path."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayreel.checkpoints.tiny import write_tiny
from rayreel.cli import app
from rayreel.config.conditions import AdapterSpec
from tests import layouts
from tests.runs.conftest import DEFAULTS, Job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROW = {"id": "fox", "prompt": "A fox in the snow.", "seed": 1, **DEFAULTS}
SAME_WEIGHTS = ("one_file", "component_files", "sharded")
OTHERS = ("generation_2_3", "generation_2_5", "fp8_cast", "fp8_scaled")


@pytest.fixture(scope="module")
def rendered(ray_cluster, tmp_path_factory):
    """The result of a row with the model in a folder or spec; each is rendered once."""
    done: dict[str, dict[str, object]] = {}

    def result(name: str, model, *options: str):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            (folder / "list.jsonl").write_text(json.dumps(ROW))
            job = Job(folder / "list.jsonl", folder / "run")
            told = job.render("--model", str(model), *options)
            assert told.exit_code == 0, told.output
            done[name] = job.results["fox"]
        return done[name]

    return result


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a layout."""
    folders: dict[str, Path] = {}

    def folder(name: str):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(f"set-{name}")
            layouts.LAYOUTS[name](folders[name])
        return folders[name]

    return folder


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_set_is_rendered_by_its_path_alone(rendered, written, name):
    assert rendered(name, written(name))["status"] == "done"


def test_layouts_of_the_same_weights_give_the_same_clip(rendered, written):
    clips = {rendered(name, written(name))["sha256"] for name in SAME_WEIGHTS}
    assert len(clips) == 1


def test_other_weights_give_other_clips(rendered, written):
    names = ("one_file", *OTHERS)
    assert len({rendered(name, written(name))["sha256"] for name in names}) == len(names)


def test_a_set_with_another_lora_is_rendered_by_its_spec(rendered, written, tmp_path):
    spec = write_tiny(tmp_path)
    assert spec.distilled_lora is not None
    lora = AdapterSpec(path=spec.distilled_lora.path, strength=0.5)
    model = spec.model_copy(update={"loras": (lora,)}).model_dump(exclude_none=True)
    (tmp_path / "model.yaml").write_text(json.dumps({"model": model}))
    result = rendered("lora", tmp_path / "model.yaml")
    assert result["sha256"] != rendered("one_file", written("one_file"))["sha256"]


def test_a_bfloat16_set_cast_at_load_is_the_set_that_was_cast(rendered, written):
    cast = ("--set", "model.quantization=fp8_cast")
    at_load = rendered("cast at load", written("one_file"), *cast)
    assert at_load["sha256"] == rendered("fp8_cast", written("fp8_cast"))["sha256"]


@pytest.mark.parametrize("policy", ["per_call", "offload", "disk"])
def test_a_memory_policy_does_not_change_the_clip(rendered, written, policy):
    options = ("--set", f"memory.transformer={policy}", "--set", f"memory.text_encoder={policy}")
    held = rendered(policy, written("one_file"), *options)
    assert held["sha256"] == rendered("one_file", written("one_file"))["sha256"]


def test_the_doctor_finds_every_layout_well(written):
    for name in layouts.LAYOUTS:
        result = CliRunner().invoke(app, ["doctor", "--model", str(written(name))])
        assert result.exit_code == 0, f"{name}: {result.output}"
