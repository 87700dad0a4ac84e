"""Publishing what a run has learned: folders, stores, the hub, names, and the card beside it."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.library import named_adapter
from rayreel.checkpoints.tiny import locate_model
from rayreel.cli import app
from rayreel.config.jobs import ModelSpec
from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.runs.publish import publish
from rayreel.runs.run_file import common_facts
from rayreel.training.validation import ValidationResult, write_results
from tests.hub import TOKEN, Hub, serving
from tests.training.datasets import tiny_dataset

# The hub's client uploads large files so; what it makes of warnings is not ours.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PROMPTS = ("a fox | jumps\n<b>high</b>", "a dog")


def result(step: int, number: int, **fields) -> ValidationResult:
    values: dict[str, Any] = {"file": f"validation/step-{step:08d}/row-{number}.mp4", "error": None}
    values |= {"prompt": PROMPTS[number - 1], "seed": number, "seconds": 1.0}
    return ValidationResult(name=f"row-{number}", **values | fields)


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


@pytest.fixture
def make_run(files, repository, tmp_path):
    """Writes a run directory: weights of two steps, and clips of the first."""

    def make(uri: str | None = None, *, weights: str | None = None, **fields) -> Storage:
        tiny_dataset(tmp_path / "data")
        storage = Storage(uri or tmp_path / "run")
        values: dict[str, Any] = {"dataset": str(tmp_path / "data"), "optimization": {"steps": 30}}
        spec = TrainSpec.model_validate(values | fields)
        facts = common_facts(spec, files)
        storage.write_bytes("run.json", json.dumps(facts).encode())
        adapter = repository / "manifests" / "modes" / "in-context-lora.safetensors"
        for step in (10, 20):
            with storage.local_staging(f"weights/step-{step:08d}.safetensors") as staged:
                shutil.copyfile(weights or adapter, staged)
        results = [result(10, 1), result(10, 2, file=None, error="ItemError: no")]
        storage.write_bytes(str(results[0].file), b"a clip")
        write_results(storage, 10, results)
        write_results(storage, 30, [result(30, 1)])
        return storage

    return make


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYREEL_ADAPTERS", str(tmp_path / "library"))
    return tmp_path / "library"


def front(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(text))


def test_a_folder_gets_weights_clips_and_a_card(make_run, tmp_path):
    run, target = make_run(), tmp_path / "shared" / "foxes"
    published = publish(run.uri, str(target))
    assert published.step == 20
    assert published.files == ("foxes.safetensors", "samples/row-1.mp4", "README.md")
    found = {str(one.relative_to(target)) for one in target.rglob("*") if one.is_file()}
    assert found == {*published.files}
    assert not (target / "foxes.safetensors").is_symlink()
    assert (target / "samples" / "row-1.mp4").read_bytes() == b"a clip"
    assert load_file(target / "foxes.safetensors").keys()


def test_a_store_to_a_store(make_run, files):
    run = make_run("memory://publish/run")
    publish(run.uri, "memory://publish/foxes.v1")
    there = Storage("memory://publish/foxes.v1")
    weights = run.read_bytes("weights/step-00000020.safetensors")
    assert there.read_bytes("foxes.v1.safetensors") == weights
    assert there.exists("samples/row-1.mp4")


def test_a_name_is_one_that_rows_can_use(make_run, tmp_path, library):
    published = publish(make_run().uri, str(tmp_path / "out"), name="foxes")
    assert published.registered == library / "foxes.safetensors"
    assert named_adapter("foxes") == str(library / "foxes.safetensors")
    assert published.files[0] == "foxes.safetensors"
    assert "`loras: [{path: foxes}]`" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_tells_what_was_trained_and_from_what(make_run, tmp_path):
    fields = {
        "lora": {"rank": 8, "alpha": 16, "targets": "video"},
        "strategy": {"name": "ic_lora", "first_frame": 0.2},
        "optimization": {"steps": 30, "batch_size": 4, "learning_rate": 2e-4, "warmup": 5},
    }
    publish(make_run(**fields).uri, str(tmp_path / "foxes"))
    card = (tmp_path / "foxes" / "README.md").read_text()
    assert card.split("---\n", 2)[2].startswith(
        "\n# foxes\n\nA LoRA of rank 8 for the transformer of `ltx-2-tiny.safetensors` "
        "(generation 2.0.0), trained on 8 encoded clips, saved after 20 of 30 steps.\n"
    )
    rows = dict(line.strip("| ").split(" | ", 1) for line in card.splitlines() if " | " in line)
    assert rows["rank, alpha"] == "8, 16 (folded into the factors)"
    assert rows["batch size"] == "4"
    assert rows["learning rate"] == "0.0002, linear, 5 steps of warm-up"
    assert rows["strategy"] == (
        r"ic\_lora: video learned, shown first\_frame (20% of samples), reference (100% of samples)"
    )
    assert "1/2 of the clip's width and height" in card
    assert "LTX2InContextPipeline" in card


def test_the_card_shows_clips_with_their_prompts_and_steps(make_run, tmp_path):
    publish(make_run().uri, str(tmp_path / "foxes"))
    card = (tmp_path / "foxes" / "README.md").read_text()
    assert front(card)["widget"] == [{"text": PROMPTS[0], "output": {"url": "samples/row-1.mp4"}}]
    assert r"| a fox \| jumps \<b\>high\</b\> | 1 | [row-1.mp4](samples/row-1.mp4) |" in card
    assert "after 10 steps" in card
    assert PROMPTS[1] not in card


def test_the_card_names_no_place_on_this_machine(make_run, files, tmp_path):
    publish(make_run().uri, str(tmp_path / "foxes"))
    card = (tmp_path / "foxes" / "README.md").read_text()
    assert str(tmp_path) not in card
    assert str(Path(files.spec.checkpoint).parent) not in card


def test_the_card_of_a_published_model_links_to_it(make_run, tmp_path, monkeypatch):
    run = make_run()
    facts = json.loads(run.read_bytes("run.json"))
    model = ModelSpec(checkpoint="/weights/ltx-2-19b-dev.safetensors", gemma="/weights/gemma")
    facts["model"] = model.model_dump(mode="json")
    run.write_bytes("run.json", json.dumps(facts).encode())
    publish(run.uri, str(tmp_path / "foxes"))
    card = (tmp_path / "foxes" / "README.md").read_text()
    assert front(card)["base_model"] == "Lightricks/LTX-2"
    assert front(card)["base_model_relation"] == "adapter"
    assert 'LTX2Pipeline.from_pretrained("Lightricks/LTX-2"' in card


def test_the_code_in_the_card_is_code(make_run, tmp_path):
    publish(make_run().uri, str(tmp_path / "foxes"))
    card = (tmp_path / "foxes" / "README.md").read_text()
    blocks = dict(block.split("\n", 1) for block in card.split("```")[1::2])
    compile(blocks["python"], "card", "exec")
    lora = {"path": "foxes.safetensors", "strength": 1.0}
    assert yaml.safe_load(blocks["yaml"]) == {"model": {"loras": [lora]}}


def test_all_weights_take_the_place_of_the_models(make_run, files, tmp_path):
    run = make_run(mode="full", weights=files.spec.checkpoint)
    publish(run.uri, str(tmp_path / "foxes"))
    card = (tmp_path / "foxes" / "README.md").read_text()
    (block,) = card.split("```")[1::2]
    assert yaml.safe_load(block.removeprefix("yaml\n")) == {
        "model": {"checkpoint": "foxes.safetensors"}
    }
    assert "fine-tuned (generation 2.0.0)" in card
    assert "LoRA" not in card
    with pytest.raises(SpecError, match="--name is for adapters"):
        publish(run.uri, str(tmp_path / "foxes"), name="foxes")


def test_a_dataset_that_is_gone_is_left_out_and_told(make_run, tmp_path, caplog):
    run = make_run()
    shutil.rmtree(tmp_path / "data")
    publish(run.uri, str(tmp_path / "foxes"))
    assert "encoded clips" not in (tmp_path / "foxes" / "README.md").read_text()
    assert "the card does not tell of the dataset" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: (run / "run.json").unlink(), "is no run directory"),
        (lambda run: (run / "run.json").write_text("{}"), "is not of a training run"),
        (lambda run: (run / "run.json").write_text('{"spec": {"prompts": "a"}}'), "not of a train"),
        (lambda run: shutil.rmtree(run / "weights"), "has no weights yet"),
    ],
)
def test_what_cannot_be_published_is_refused(make_run, tmp_path, change, said):
    run = make_run()
    change(Path(run.uri))
    with pytest.raises(SpecError, match=said):
        publish(run.uri, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("to", "options", "said"),
    [
        ("hf://foxes", {}, "expected hf://user/name, of letters"),
        ("hf://user/fo xes", {}, "expected hf://user/name, of"),
        ("hf://datasets/user/foxes", {}, "expected hf://user/name"),
        ("out", {"private": True}, "--private is for hf://user/name"),
        ("out", {"name": "a/b"}, "expected 1 to 100 letters"),
        ("/proc/no", {}, "cannot write to /proc/no"),
    ],
)
def test_a_place_that_is_none_is_refused(make_run, tmp_path, monkeypatch, to, options, said):
    run = make_run()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=said):
        publish(run.uri, to, **options)


@pytest.fixture
def hub():
    with serving() as hub:
        yield hub


@pytest.fixture
def push(make_run, hub, monkeypatch, caplog):
    """Publishes to the hub with everything that is logged at any level."""
    run = make_run()
    # What the client has read from the environment when it was imported. Its own protocol for large
    # files is more than a small server speaks.
    settings = {"ENDPOINT": hub.address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    caplog.set_level(logging.DEBUG)

    def call(*options: str, token: str = TOKEN) -> SimpleNamespace:
        monkeypatch.setenv("HF_TOKEN", token)
        done = CliRunner().invoke(app, ["publish", run.uri, "hf://user/foxes", *options])
        assert token not in done.stdout + done.stderr + caplog.text
        return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr, run=run)

    return call


def test_the_hub_gets_a_repository_with_one_commit(push, hub: Hub):
    done = push("--private")
    assert (done.code, done.out.split(":")[0]) == (0, "http"), done.err
    assert hub.private == {"user/foxes": True}
    files = hub.files["user/foxes"]
    assert files.keys() == {"foxes.safetensors", "samples/row-1.mp4", "README.md"}
    weights = done.run.read_bytes("weights/step-00000020.safetensors")
    assert files["foxes.safetensors"] == weights
    assert 'load_lora_weights("user/foxes"' in files["README.md"].decode()
    assert hub.messages == ["Weights of step 20"]


def test_what_the_hub_refuses_can_be_tried_again(push, hub: Hub, library):
    hub.refuses = "/commit/"
    done = push("--name", "foxes")
    assert done.code == 2
    assert "hf://user/foxes did not take it: " in done.err
    assert "weights/step-00000020.safetensors and the clips are in" in done.err
    assert "the same command tries again, once `hf auth login` or HF_TOKEN" in done.err
    assert "Traceback" not in done.err
    assert done.run.exists("weights/step-00000020.safetensors")
    hub.refuses = "\0"
    assert push("--name", "foxes").code == 0
    assert "foxes.safetensors" in hub.files["user/foxes"]


def test_a_public_repository_gets_nothing_that_is_to_be_private(push, hub: Hub):
    hub.files["user/foxes"], hub.private["user/foxes"] = {}, False
    done = push("--private")
    assert done.code == 2
    assert "everybody sees it" in done.err
    assert hub.files["user/foxes"] == {}


def test_a_wrong_token_is_told_as_such(push, hub: Hub):
    done = push(token="hf_AWrongSecret")
    assert done.code == 2
    assert "once `hf auth login` or HF_TOKEN gives it a token" in done.err
    assert hub.files == {}
