"""The text pass, and stages that find in the store what it left there."""

import logging
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import MemorySpec, ModelSpec
from rayreel.config.request import RenderRequest
from rayreel.models.text import generation
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.chunks import STILL_NEGATIVE
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.stages.base import ItemFailure, RenderItem, TextItem, run_stage
from rayreel.stages.denoise import GenerateStage, RefineStage
from rayreel.stages.text import TextStage, is_written_before, needed_texts, text_store
from tests.pipelines.small import DEVICE, pinned, small_resolved
from tests.pipelines.test_enhance import write_gemma

MEMORY = MemorySpec()
LONG = {"num_frames": 57, "chain": {"chunk_frames": 25}}


def texts(*contents: str) -> list[TextItem]:
    return [TextItem(item_id=text, text=text) for text in contents]


@pytest.fixture
def model(tmp_path) -> ModelSpec:
    """The tiny model under a name of its own, which so has networks of its own."""
    link = tmp_path / "model.safetensors"
    spec = locate_model("tiny")
    link.symlink_to(str(spec.checkpoint))
    return spec.model_copy(update={"checkpoint": str(link)})


def ledger(model: ModelSpec) -> ModelLedger:
    """What the stages of this process share."""
    return ledger_for(model, DEVICE, MEMORY)


def text_stage(model: ModelSpec | Literal["tiny"], folder: Path) -> TextStage:
    stage = TextStage(model, DEVICE, MEMORY, str(folder))
    stage.setup()
    return stage


def denoised(model: ModelSpec, folder: Path, *items: RenderItem):
    results: Any = list(items)
    for stage in (
        GenerateStage(model, DEVICE, MEMORY, str(folder), str(folder)),
        RefineStage(model, DEVICE, MEMORY, str(folder)),
    ):
        stage.setup()
        results = run_stage(stage, results)
    return results


def resolved(**fields) -> RenderRequest:
    return small_resolved(ledger_for("tiny", DEVICE, MEMORY).files, **fields)


def test_texts_that_nobody_knows_are_put_into_the_store_as_one_part(model, tmp_path):
    stage = text_stage(model, tmp_path)
    done = run_stage(stage, texts("A fox.", "A cat.", "A fox."))
    assert [(type(item), item.item_id) for item in done] == [
        (TextItem, "A fox."),
        (TextItem, "A cat."),
        (TextItem, "A fox."),
    ]
    assert len(list((tmp_path / "records").iterdir())) == 1
    assert text_store(ledger(model), str(tmp_path)).known(["A fox.", "A cat.", "?"]) == {
        "A fox.",
        "A cat.",
    }


def test_the_encoder_is_loaded_when_a_text_is_not_known(model, tmp_path):
    text_stage("tiny", tmp_path)(texts("A fox."))
    stage = text_stage(model, tmp_path)
    stage(texts("A fox."))
    assert ledger(model).loads == ()
    stage(texts("A fox.", "A cat."))
    assert ledger(model).loads == ("TextEncoder",)


def test_prompts_are_written_and_what_was_written_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SAMPLING", {**generation.SAMPLING, "max_new_tokens": 24})
    (tmp_path / "gemma").mkdir()
    gemma = write_gemma(tmp_path / "gemma")
    spec = locate_model("tiny").model_copy(update={"gemma": str(gemma)})
    request = resolved(enhance=True)
    assert is_written_before(request)
    item = TextItem(item_id="fox", text=request.prompt, request=request)
    (done,) = run_stage(text_stage(spec, tmp_path), [item])
    assert isinstance(done, TextItem)
    assert done.written not in {None, request.prompt}
    store = text_store(ledger(spec), str(tmp_path))
    assert store.known([str(done.written), request.prompt]) == {done.written}


def test_a_writer_that_cannot_write_leaves_the_prompt_and_a_note(model, tmp_path):
    request = resolved(enhance=True)
    item = TextItem(item_id="fox", text=request.prompt, request=request)
    (done,) = run_stage(text_stage(model, tmp_path), [item])
    assert isinstance(done, TextItem)
    assert done.written is None
    assert "no chat template" in str(done.notes)
    assert text_store(ledger(model), str(tmp_path)).known([request.prompt])


def test_a_prompt_that_cannot_be_written_costs_its_item_alone(model, tmp_path):
    images = (pinned(tmp_path / "missing.png"),)
    request = resolved(enhance=True, images=images, seed=5)
    bad = TextItem(item_id="blind", text=request.prompt, request=request)
    failed, done = run_stage(text_stage(model, tmp_path), [bad, *texts("A cat.")])
    assert isinstance(failed, ItemFailure)
    assert (failed.stage, failed.error, failed.seed) == ("text", "MediaError", 5)
    assert isinstance(done, TextItem)
    assert text_store(ledger(model), str(tmp_path)).known(["A cat."])


@pytest.mark.parametrize("fields", [{"pipeline": "two_stage"}, {"pipeline": "distilled", **LONG}])
def test_who_denoises_known_texts_loads_no_language_model(model, tmp_path, caplog, fields):
    request = resolved(**fields)
    text_stage("tiny", tmp_path)(texts(*needed_texts(request, 8)))
    with caplog.at_level(logging.WARNING):
        (done,) = denoised(model, tmp_path, RenderItem(item_id="fox", request=request))
    assert isinstance(done, RenderItem)
    assert "TextConnectors" in ledger(model).loads
    assert "TextEncoder" not in ledger(model).loads
    assert caplog.messages == []


def test_texts_that_are_not_in_the_store_are_encoded_on_the_spot(model, tmp_path, caplog):
    request = resolved(pipeline="one_stage")
    with caplog.at_level(logging.WARNING):
        (done,) = denoised(model, tmp_path, RenderItem(item_id="fox", request=request))
    assert isinstance(done, RenderItem)
    assert f"2 of 2 texts are not in {tmp_path}: encoded here" in caplog.messages
    known = text_store(ledger(model), str(tmp_path)).known(needed_texts(request, 8))
    assert known == {request.prompt, request.negative_prompt}


def test_a_clip_is_made_from_the_prompt_that_was_written_for_it(model, tmp_path):
    plain, other = resolved(pipeline="distilled"), resolved(pipeline="distilled", prompt="A cat.")
    items = [
        RenderItem(item_id="written", request=plain, prompts=("A cat.",)),
        RenderItem(item_id="asked", request=other),
        RenderItem(item_id="plain", request=plain),
    ]
    written, asked, fox = (denoised(model, tmp_path, item)[0].latents.video for item in items)
    assert torch.equal(written, asked)
    assert not torch.equal(written, fox)


def test_needed_texts_are_those_that_are_told_before():
    request = resolved(pipeline="one_stage", negative_prompt="dull")
    assert needed_texts(request, 8) == ["A fox.", "dull"]
    assert needed_texts(resolved(pipeline="distilled"), 8) == ["A fox."]
    written = resolved(pipeline="one_stage", negative_prompt="dull", enhance=True)
    assert needed_texts(written, 8) == ["dull"]
    long = resolved(pipeline="one_stage", negative_prompt="dull", **LONG)
    assert needed_texts(long, 8) == ["A fox.", "dull", f"dull, {STILL_NEGATIVE}"]


def test_images_of_another_model_need_no_texts():
    request = RenderRequest(prompt="A fox.", pipeline="image", num_frames=1, audio=False)
    assert not pipeline_of(request).traits.stages
    assert needed_texts(request, 8) == []
    assert not is_written_before(request.model_copy(update={"enhance": True}))


def test_the_director_writes_prompts_of_long_clips_on_the_way():
    request = resolved(pipeline="distilled", enhance=True, **LONG)
    assert needed_texts(request, 8) == []
    assert not is_written_before(request)
