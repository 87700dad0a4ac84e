"""Too little memory: the same items, with less of it."""

from dataclasses import replace

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import MemorySpec
from rayreel.config.request import RenderRequest
from rayreel.errors import StorageError
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.stages.base import ItemFailure, RenderItem
from rayreel.stages.denoise import GenerateStage
from rayreel.stages.groups import Relief, in_groups, is_out_of_memory
from tests.pipelines.small import DEVICE, resolved
from tests.stages.test_base import items


class Memory:
    """Work that fits with so many items in a call, once so many measures were taken."""

    def __init__(self, fits: int, measures: int = 0, steps=("tiles", "offload")):
        self.fits, self.measures, self.left = fits, measures, list(steps)
        self.relief = Relief(lambda: self.left.pop(0) if self.left else None)
        self.calls: list[int] = []

    def __call__(self, batch):
        self.calls.append(len(batch))
        if len(batch) > self.fits or len(self.relief.taken) < self.measures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [replace(item, attempt=item.attempt + 1) for item in batch]

    def results(self, *names):
        return in_groups("work", items(*names), lambda _: "kind", self, self.relief)


def test_a_batch_that_does_not_fit_is_halved_and_later_ones_start_there():
    memory = Memory(fits=2)
    assert [result.attempt for result in memory.results(*"abcdefgh")] == [2] * 8
    assert memory.calls == [8, 4, 2, 2, 2, 2]
    results = memory.results(*"ijkl")
    assert memory.calls[6:] == [2, 2]
    assert {result.memory for result in results if not isinstance(result, ItemFailure)} == {
        "batch 2"
    }


def test_a_single_item_climbs_the_ladder_and_says_what_helped():
    memory = Memory(fits=1, measures=2)
    (result,) = memory.results("a")
    assert not isinstance(result, ItemFailure)
    assert result.memory == "tiles, offload"
    assert memory.calls == [1, 1, 1]


def test_what_does_not_fit_at_all_is_a_failure_that_may_go_otherwise():
    (result,) = Memory(fits=0).results("a")
    assert isinstance(result, ItemFailure)
    assert (result.error, result.retryable) == ("OutOfMemoryError", True)


def test_what_earlier_stages_needed_is_kept():
    memory = Memory(fits=1, measures=1)
    (item,) = items("a")
    (result,) = in_groups(
        "work", [replace(item, memory="batch 2")], lambda _: "k", memory, memory.relief
    )
    assert not isinstance(result, ItemFailure)
    assert result.memory == "batch 2, tiles"


def test_storage_that_does_not_answer_is_no_fault_of_an_item():
    def work(_):
        raise StorageError("s3://bucket does not answer")

    with pytest.raises(StorageError):
        in_groups("work", items("a"), lambda _: None, work)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_allocators_say_it_in_their_own_words(error, said):
    assert is_out_of_memory(error) == said


def test_a_ledger_that_is_relieved_lends_the_same_weights_from_disk():
    ledger = ModelLedger("tiny", DEVICE)
    with ledger.upsampler() as upsampler:
        before = upsampler.state_dict()
    assert [ledger.relieve("tiles", "offload") for _ in range(3)] == ["tiles", "offload", None]
    assert (ledger.small_tiles, ledger.memory.transformer) == (True, "disk")
    with ledger.upsampler() as upsampler:
        after = upsampler.state_dict()
    assert ledger.loads.count("LatentUpsampler") == 2
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_that_is_too_small_for_a_batch_takes_smaller_ones(tmp_path):
    device = Device("cuda", "bfloat16", "for the test")
    request = resolved(
        RenderRequest(prompt="Rain.", width=768, height=512, num_frames=121, steps=1, seed=1),
        ModelFiles(locate_model("tiny")),
    )
    batch = [RenderItem(item_id=f"{n}", request=request) for n in range(8)]
    stage = GenerateStage("tiny", device, MemorySpec(), str(tmp_path), str(tmp_path))
    stage.setup()
    # What ran in this process before does not count.
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    (alone,) = stage(batch[:1])
    one = torch.cuda.max_memory_allocated()
    # Room for the network and for some three of the eight.
    torch.cuda.set_per_process_memory_fraction(3 * one / torch.cuda.mem_get_info()[1])
    try:
        results = stage(batch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not isinstance(alone, ItemFailure)
    assert {type(result) for result in results} == {RenderItem}
    assert {result.memory for result in results if isinstance(result, RenderItem)} <= {
        *("batch 4", "batch 2", "batch 1")
    }
