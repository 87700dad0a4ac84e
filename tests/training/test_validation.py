"""Validation clips: of every mode, from the weights of their step, and none that stops the rest."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.errors import CheckpointError
from rayreel.media.audio import read_audio
from rayreel.media.container import probe
from rayreel.media.mux import write_clip
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.texts import TextStore
from rayreel.runs.training.validation_rows import validation_requests
from rayreel.training.validation import ValidationTask, read_results, results_name, with_relief

CPU = Device("cpu", "float32", "in tests")
SMALL = {"width": 64, "height": 64, "num_frames": 9, "steps": 2}
HARBOUR = {"path": "modes/harbour.mp4"}
SUNSET = {"path": "demo-sunset.png"}
STRETCH = HARBOUR | {"start_s": 0.4, "end_s": 0.7}
MODES: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"images": [SUNSET]},
    "still": {"num_frames": 1},
    "two_stage": {"pipeline": "two_stage"},
    "high_quality": {"pipeline": "high_quality"},
    "distilled": {"pipeline": "distilled", "enhance": True},
    "keyframes": {"pipeline": "keyframes", "images": [SUNSET, SUNSET | {"frame": 8}]},
    "ic_lora": {"references": [HARBOUR], "width": 128, "height": 128},
    "sound": {"video": False},
    "soundtrack": {"soundtrack": {"path": "modes/bell.wav"}},
    "retake": {"retake": STRETCH},
    "extend": {"extend": HARBOUR, "num_frames": 8},
    "long": {"num_frames": 33, "chain": {"chunk_frames": 25}},
}


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


@pytest.fixture(scope="module")
def in_context(repository) -> str:
    """An adapter whose references are half as large as its targets."""
    return str(repository / "manifests" / "modes" / "in-context-lora.safetensors")


@pytest.fixture
def task(files, repository, tmp_path):
    """Makes tasks for some rows."""

    def make(*rows, **fields) -> ValidationTask:
        validation = {"rows": rows, "defaults": SMALL}
        spec = TrainSpec.model_validate({"dataset": "d", "validation": validation})
        requests = validation_requests(spec, files, str(repository / "manifests"))
        values: dict[str, Any] = {
            "mode": "lora",
            "weights": None,
            "step": 0,
            "output": str(tmp_path / "run"),
        }
        values |= {"model": files.spec, "requests": requests, "device": CPU}
        return ValidationTask(**(values | fields))

    return make


def clips(task: ValidationTask) -> list[bytes]:
    results = task()
    assert [one.error for one in results] == [None] * len(results)
    return [Path(task.output, str(one.file)).read_bytes() for one in results]


def test_every_mode_has_its_clip(task, in_context):
    rows = [{"prompt": f"a {name}", **fields} for name, fields in MODES.items()]
    todo = task(*rows, weights=in_context, step=12)
    results = dict(zip(MODES, todo(), strict=True))
    assert {name: one.error for name, one in results.items()} == dict.fromkeys(MODES)
    paths = {name: Path(todo.output, str(one.file)) for name, one in results.items()}
    assert paths["text"] == Path(todo.output, "validation/step-00000012/row-1.mp4")
    assert paths["still"].suffix == ".png"
    sound = read_audio(paths["sound"])
    assert sound is not None
    assert sound.waveform.abs().max() > 0
    frames = {n: probe(p).num_frames for n, p in paths.items() if p.suffix == ".mp4"}
    others = {"retake": 25, "extend": 33, "long": 33}
    assert frames == {name: others.get(name, 9) for name in frames}


@pytest.mark.parametrize("fields", [{}, MODES["ic_lora"], MODES["distilled"] | {"enhance": False}])
def test_a_clip_is_what_its_pipeline_makes_with_the_adapter(
    task, files, in_context, tmp_path, fields
):
    todo = task({"prompt": "a fox", **fields}, weights=in_context)
    (_, request), adapter = todo.requests[0], AdapterSpec(path=in_context)
    ledger = ModelLedger(files.spec.model_copy(update={"loras": (adapter,)}), CPU)
    write_clip(tmp_path / "expected.mp4", pipeline_of(request)(ledger)(request))
    assert clips(todo) == [(tmp_path / "expected.mp4").read_bytes()]


def test_weights_change_the_clip_and_the_step_does_not(task, in_context):
    before = task("a fox", {"prompt": "a fox", "seed": 0})
    assert clips(replace(before, step=5)) == clips(before)
    after = clips(replace(before, weights=in_context, step=10))
    assert all(new != old for new, old in zip(after, clips(before), strict=True))


def test_the_models_own_adapters_stay_beside_the_trained_one(task, files, in_context):
    own = AdapterSpec(path=files.spec.distilled_lora.path)
    todo = task("a fox", weights=in_context)
    together = replace(todo, model=files.spec.model_copy(update={"loras": (own,)}))
    assert len({*clips(todo), *clips(together), *clips(replace(together, weights=None))}) == 3


def test_a_checkpoint_takes_the_place_of_the_models_with_all_that_is_in_it(task, files, tmp_path):
    weights = tmp_path / "full.safetensors"
    tensors = load_file(files.spec.checkpoint)
    key = "model.diffusion_model.proj_out.weight"
    with safe_open(files.spec.checkpoint, "pt") as file:
        save_file(tensors | {key: tensors[key] * 1.5}, weights, file.metadata())
    own = AdapterSpec(path=files.spec.distilled_lora.path)
    todo = task("a fox", mode="full")
    trained = replace(todo, weights=str(weights))
    with_own = files.spec.model_copy(update={"loras": (own,)})
    assert clips(trained) != clips(todo)
    # The run has fused the adapter before it trained, so the file has it.
    assert clips(replace(trained, model=with_own)) == clips(trained)
    assert clips(replace(todo, model=with_own)) != clips(todo)


def test_references_have_their_scale_before_there_are_weights(task, in_context, tmp_path):
    todo = task({"prompt": "a fox", **MODES["ic_lora"]}, reference_scales=(2, 1))
    zeros = {
        name: torch.zeros_like(tensor) if "lora_B" in name else tensor
        for name, tensor in load_file(in_context).items()
    }
    save_file(zeros, tmp_path / "zeros.safetensors", {"reference_downscale_factor": "2"})
    untrained = clips(todo)
    assert untrained == clips(replace(todo, weights=str(tmp_path / "zeros.safetensors")))
    assert untrained != clips(replace(todo, reference_scales=None))


def test_a_row_that_fails_is_a_result_and_the_others_go_on(task, tmp_path, repository):
    image = tmp_path / "a.png"
    image.write_bytes((repository / "manifests" / "demo-sunset.png").read_bytes())
    todo = task({"prompt": "gone", "images": [{"path": str(image)}], "seed": 0}, "a fox")
    image.unlink()
    failed, done = todo()
    assert failed.error == f"MediaError: cannot read {image}: No such file or directory"
    assert (failed.file, failed.seed, done.error) == (None, 0, None)
    assert Path(todo.output, str(done.file)).is_file()


def test_results_are_listed_behind_their_clips(task):
    todo = task("a fox", step=3)
    results = todo()
    storage = Storage(todo.output)
    assert read_results(storage, 3) == list(results)
    (entry,) = json.loads(storage.read_bytes(results_name(3)))
    assert entry.keys() == {"name", "prompt", "seed", "file", "error", "seconds"}
    assert (entry["name"], entry["prompt"]) == ("row-1", "a fox")


def test_texts_are_encoded_at_the_first_step_alone(task, files):
    todo = task("a fox", "a dog")
    todo()
    store = TextStore(RecordStore(Storage(todo.output)), files)
    assert store.known(["a fox", "a dog"]) == {"a fox", "a dog"}
    parts = sorted(Path(todo.output, "records").iterdir())
    replace(todo, step=1)()
    assert sorted(Path(todo.output, "records").iterdir()) == parts


def test_weights_and_clips_may_lie_in_a_store(task, in_context):
    with fsspec.open("memory://validation/weights.safetensors", "wb") as file:
        file.write(Path(in_context).read_bytes())
    todo = task("a fox", weights="memory://validation/weights.safetensors")
    remote = replace(todo, output="memory://validation/run")
    (result,) = remote()
    (expected,) = clips(replace(todo, weights=in_context))
    assert Storage(remote.output).read_bytes(str(result.file)) == expected


def test_a_task_can_be_sent_elsewhere(task):
    todo = task("a fox", {"prompt": "wind", "video": False}, reference_scales=(1, 1))
    assert pickle.loads(pickle.dumps(todo)) == todo


def test_weights_that_are_none_stop_the_task(task, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    todo = task("a fox", weights=str(tmp_path / "weights.safetensors"))
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        todo()
    assert not Path(todo.output, results_name(0)).exists()


def test_work_that_runs_out_of_memory_is_tried_again_with_less(files):
    ledger, tries = ModelLedger(files.spec, CPU), []

    def work() -> str:
        tries.append(ledger.small_tiles)
        if len(tries) < 3:
            raise torch.OutOfMemoryError("too much")
        return "done"

    assert with_relief(ledger, work) == "done"
    assert tries == [False, True, True]
    assert ledger.memory.transformer == "disk"
    tries.clear()
    with pytest.raises(torch.OutOfMemoryError, match="too much"):
        with_relief(ledger, work)
