"""Batches of items: one bad item costs one item, and everything comes out in order."""

import pickle
from dataclasses import replace

import pytest
import torch

from rayreel.config.jobs import MemorySpec
from rayreel.errors import CheckpointError, ItemError
from rayreel.stages.base import ItemFailure, RenderItem, TextItem, run_stage
from rayreel.stages.decode import DecodeStage
from rayreel.stages.denoise import GenerateStage, RefineStage
from rayreel.stages.groups import in_groups
from rayreel.stages.text import TextStage
from rayreel.types import Latents
from tests.pipelines.small import DEVICE, small

MEMORY = MemorySpec()


class Work:
    """Counts attempts up; cannot do items whose name starts with ``bad``."""

    name = "work"
    loads = ()

    def __init__(self):
        self.calls = []

    def setup(self):
        pass

    def __call__(self, items):
        self.calls.append([item.item_id for item in items])
        for item in items:
            if item.item_id.startswith("bad"):
                raise ItemError(f"{item.item_id} is broken")
        return [replace(item, attempt=item.attempt + 1) for item in items]


class InGroups(Work):
    """The same, item by item where one is bad."""

    def __call__(self, items):
        return in_groups("work", items, lambda _: None, super().__call__)


def items(*names):
    return [RenderItem(item_id=name, request=small(seed=7)) for name in names]


def outcomes(results):
    return [(type(result).__name__, result.item_id) for result in results]


def test_a_group_is_done_in_one_call():
    work = Work()
    results = in_groups("work", items("a", "b"), lambda _: None, work)
    assert work.calls == [["a", "b"]]
    assert [result.attempt for result in results] == [2, 2]


def test_a_bad_item_costs_one_item():
    work = Work()
    results = in_groups("work", items("a", "bad", "b"), lambda _: None, work)
    assert outcomes(results) == [("RenderItem", "a"), ("ItemFailure", "bad"), ("RenderItem", "b")]
    assert work.calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]


def test_a_failure_says_what_happened():
    (failure,) = in_groups("work", items("bad"), lambda _: None, Work())
    assert isinstance(failure, ItemFailure)
    assert failure.seconds > 0
    assert replace(failure, seconds=0.0) == ItemFailure(
        item_id="bad",
        stage="work",
        error="ItemError",
        message="bad is broken",
        seed=7,
        attempt=1,
        seconds=0.0,
    )


def test_a_failure_without_words_names_its_class():
    def work(_):
        raise ZeroDivisionError

    (failure,) = in_groups("work", items("a"), lambda _: None, work)
    assert isinstance(failure, ItemFailure)
    assert failure.message == "ZeroDivisionError"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, CheckpointError])
def test_what_no_item_is_to_blame_for_stops_the_stage(fault):
    def work(_):
        raise fault

    with pytest.raises(fault):
        in_groups("work", items("a"), lambda _: None, work)


def test_only_like_items_share_a_call_and_the_order_stays():
    work = Work()
    batch = items("a1", "b1", "a2", "bad", "b2")
    results = in_groups("work", batch, lambda item: item.item_id[0], work)
    assert [result.item_id for result in results] == ["a1", "b1", "a2", "bad", "b2"]
    assert work.calls[0] == ["a1", "a2"]
    assert work.calls[1] == ["b1", "bad", "b2"]


def test_what_failed_before_passes_through_a_stage():
    first, second = items("a", "b")
    (failure,) = in_groups("earlier", items("bad"), lambda _: None, Work())
    stage = Work()
    results = run_stage(stage, [first, failure, second])
    assert stage.calls == [["a", "b"]]
    assert results[1] is failure
    assert [result.attempt for result in results] == [2, 1, 2]


def test_a_stage_is_not_called_for_failures_alone():
    failures = in_groups("earlier", items("bad", "bad too"), lambda _: None, Work())
    stage = Work()
    assert run_stage(stage, failures) == failures
    assert stage.calls == []


def test_the_time_of_every_stage_is_noted():
    results = run_stage(Work(), run_stage(Work(), items("a", "b")))
    for result in results:
        assert isinstance(result, RenderItem)
        assert [name for name, _ in result.seconds] == ["work", "work"]
        assert all(seconds > 0 for _, seconds in result.seconds)


@pytest.mark.parametrize(
    "stage",
    [
        TextStage("tiny", DEVICE, MEMORY, "run"),
        GenerateStage("tiny", DEVICE, MEMORY, "run", "run"),
        RefineStage("tiny", DEVICE, MEMORY, "run"),
        DecodeStage("tiny", DEVICE, MEMORY, "run"),
    ],
    ids=lambda stage: stage.name,
)
def test_a_stage_is_small_to_send_before_setup(stage):
    data = pickle.dumps(stage)
    assert len(data) < 2000
    sent = pickle.loads(data)
    assert (sent.name, sent.model, sent.device) == (stage.name, stage.model, stage.device)


def test_an_item_can_be_sent_with_its_tensors():
    video = torch.ones(1, 1, 2, 2)
    (plain,) = items("a")
    sent = pickle.loads(pickle.dumps(replace(plain, latents=Latents(video=video, audio=None))))
    assert torch.equal(sent.latents.video, video)
    assert replace(sent, latents=None) == plain


def test_texts_go_through_stages_like_requests():
    texts = [TextItem(item_id=name, text="A fox.") for name in ("a", "bad")]
    results = run_stage(InGroups(), texts)
    assert outcomes(results) == [("TextItem", "a"), ("ItemFailure", "bad")]
    failure = results[1]
    assert isinstance(failure, ItemFailure)
    assert failure.seed is None
