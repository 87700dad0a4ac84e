"""The stages of a render job one after the other, without Ray."""

import hashlib

import pytest

from rayreel.config.jobs import MemorySpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.pipelines import PIPELINE_CLASSES
from rayreel.pipelines.ledger import ledger_for
from rayreel.stages.base import ItemFailure, RenderItem, run_stage
from tests.pipelines.small import DEVICE, PIPELINE_NAMES, pinned, small, small_resolved
from tests.stages.conftest import stages_in

MEMORY = MemorySpec()


@pytest.fixture(scope="module")
def stages(folder):
    return stages_in(folder)


def item(name, **fields):
    files = ledger_for("tiny", DEVICE, MEMORY).files
    return RenderItem(item_id=name, request=small_resolved(files, **fields))


def chained(stages, results):
    for stage in stages:
        results = run_stage(stage, results)
    return results


@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_stages_give_the_clip_of_the_pipeline(stages, folder, name):
    (done,) = chained(stages, [item(name, pipeline=name)])
    clip = PIPELINE_CLASSES[name](ledger_for("tiny", DEVICE, MEMORY))(small(pipeline=name))
    assert done.output.sha256 == hashlib.sha256(clip.frames.numpy().data).hexdigest()
    assert (folder / done.output.path).stat().st_size == done.output.num_bytes
    assert [stage for stage, _ in done.seconds] == ["text", "stage1", "stage2", "decode"]


def test_a_finished_item_carries_no_tensors(stages):
    (done,) = chained(stages, [item("light", pipeline="distilled")])
    assert done.context is done.negative is done.latents is None


def test_a_missing_image_costs_its_item_alone(stages, folder, tmp_path):
    images = (pinned(tmp_path / "missing.png"),)
    batch = [item("blind", images=images), item("quick", pipeline="distilled"), item("seeing")]
    failed, quick, seeing = chained(stages, batch)
    assert isinstance(failed, ItemFailure)
    assert (failed.stage, failed.error) == ("stage1", "MediaError")
    assert "missing.png" in failed.message
    entries = Ledger(Storage(folder)).read()
    assert "blind" not in entries
    for done in (quick, seeing):
        assert entries[done.item_id].sha256 == done.output.sha256


def test_an_item_that_is_seen_twice_is_the_same_clip(stages, folder):
    *first, decode = stages
    ready = chained(first, [item("again", pipeline="distilled")])
    once, twice = (chained([decode], ready)[0].output for _ in range(2))
    assert once == twice
    assert Ledger(Storage(folder)).read()["again"].sha256 == once.sha256
