"""The same weights in every layout of published sets, rendered with no flag but the path."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayreel.checkpoints.tiny import write_tiny
from rayreel.cli import app
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import StageSpec
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.devices import choose_device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.requests.spec import read_render_spec
from rayreel.runs.opened import plan
from tests import layouts
from tests.runs.conftest import DEFAULTS, Job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROW = {"id": "fox", "prompt": "A fox in the snow.", "seed": 1, **DEFAULTS}
SAME_WEIGHTS = ("one_file", "component_files", "sharded")
OTHERS = ("generation_2_3", "generation_2_5", "fp8_cast", "fp8_scaled")
# An index and a folder of Gemma; a file for each component and a packed Gemma; scales.
BY_JOB = ("sharded", "generation_2_5", "fp8_scaled")
DISK = ("memory.transformer=disk", "memory.text_encoder=disk")
CAST = "model.quantization=fp8_cast"


@pytest.fixture
def job(tmp_path) -> Job:
    """A list of one row, and no spec."""
    (tmp_path / "list.jsonl").write_text(json.dumps(ROW))
    return Job(tmp_path / "list.jsonl", tmp_path / "run")


def by_job(job: Job, model: Path, *settings: str) -> object:
    """Checksum of the clip that the command makes, on Ray."""
    options = [part for setting in settings for part in ("--set", setting)]
    told = job.render("--model", str(model), *options)
    assert told.exit_code == 0, told.output
    return job.results["fox"]["sha256"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Checksum of the clip that this process makes of what the command reads; each is made once."""
    done: dict[tuple[object, ...], str] = {}

    def clip(model: Path, *settings: str) -> str:
        key = (model, *settings)
        if key not in done:
            folder = tmp_path_factory.mktemp("clip")
            (folder / "list.jsonl").write_text(json.dumps(ROW))
            spec = read_render_spec(
                str(folder / "list.jsonl"), settings, str(folder / "run"), str(model)
            )
            _, (row,) = plan(spec)
            ledger = ModelLedger(spec.model, choose_device(StageSpec()), spec.memory)
            made = pipeline_of(row.request)(ledger)(row.request)
            done[key] = hashlib.sha256(made.frames.numpy().data).hexdigest()
        return done[key]

    return clip


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


@pytest.fixture
def with_lora(tmp_path):
    """A spec of a model with another LoRA."""
    spec = write_tiny(tmp_path)
    assert spec.distilled_lora is not None
    lora = AdapterSpec(path=spec.distilled_lora.path, strength=0.5)
    model = spec.model_copy(update={"loras": (lora,)}).model_dump(exclude_none=True)
    (tmp_path / "model.yaml").write_text(json.dumps({"model": model}))
    return tmp_path / "model.yaml"


@pytest.mark.parametrize("name", BY_JOB)
def test_a_job_renders_a_set_by_its_path_alone(ray_cluster, job, clip, written, name):
    assert by_job(job, written(name)) == clip(written(name))


def test_a_job_does_all_that_its_spec_says_of_the_model(ray_cluster, job, clip, with_lora):
    """Adapters, float8 and how weights are held, which does not change the clip."""
    assert by_job(job, with_lora, CAST, *DISK) == clip(with_lora, CAST)


def test_layouts_of_the_same_weights_give_the_same_clip(clip, written):
    assert len({clip(written(name)) for name in SAME_WEIGHTS}) == 1


def test_other_weights_give_other_clips(clip, written):
    names = ("one_file", *OTHERS)
    assert len({clip(written(name)) for name in names}) == len(names)


def test_a_set_with_another_lora_gives_another_clip(clip, written, with_lora):
    clips = {clip(written("one_file")), clip(with_lora), clip(with_lora, CAST)}
    assert len(clips | {clip(written("fp8_cast"))}) == 4


def test_a_bfloat16_set_cast_at_load_is_the_set_that_was_cast(clip, written):
    assert clip(written("one_file"), CAST) == clip(written("fp8_cast"))


def test_a_memory_policy_does_not_change_the_clip(clip, written):
    assert clip(written("one_file"), *DISK) == clip(written("one_file"))


def test_the_doctor_finds_every_layout_well(written):
    for name in layouts.LAYOUTS:
        result = CliRunner().invoke(app, ["doctor", "--model", str(written(name))])
        assert result.exit_code == 0, f"{name}: {result.output}"
