import pytest
import torch
import torch.distributed as dist

from rayreel.training.group import joined
from tests.training.processes import in_two_processes


@pytest.fixture
def ours():
    """A process group that somebody else has made."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _exchange():
    with joined("cpu") as group:
        total = group.sum(torch.tensor([1.0, group.rank]))
        group.barrier()
        shared = group.share({"rank": group.rank})
    return group.rank, group.world, total.tolist(), shared, dist.is_initialized()


def test_a_process_alone_needs_no_process_group():
    with joined("cpu") as group:
        assert (group.rank, group.world, group.device) == (0, 1, torch.device("cpu"))
        assert not dist.is_initialized()
        assert group.sum(torch.tensor(3.0)) == 3
        assert group.share("mine") == "mine"
        group.barrier()


def test_processes_of_a_launcher_find_each_other_and_part():
    same = [1 + 1, 0 + 1], {"rank": 0}, False
    assert in_two_processes(_exchange) == [(0, 2, *same), (1, 2, *same)]


def test_a_process_group_that_there_is_is_used_and_left(ours):
    with joined("cpu") as group:
        assert (group.rank, group.world) == (0, 1)
    assert dist.is_initialized()


def test_a_run_that_fails_leaves_its_group():
    assert in_two_processes(_fail) == [False, False]


def _fail():
    with pytest.raises(RuntimeError, match="lost"), joined("cpu"):
        raise RuntimeError("lost")
    return dist.is_initialized()
