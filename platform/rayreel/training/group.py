"""The processes that train together, whoever has started them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

TIMEOUT = timedelta(hours=24)
"""Of a process that waits for the others: one of them may be rendering validation clips."""

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""Tensors of the host are exchanged as well: states that are offloaded, and checkpoints."""


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that train together.

    Attributes:
        rank: Of this process, from 0.
        world: Number of processes; one alone has no need of ``torch.distributed``.
        device: Where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a small tensor over all processes, on ``device``; all of them must call it."""
        if self.world == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        dist.all_reduce(total)
        return total

    def share(self, value: T) -> T:
        """What the first process has; all of them must call it.

        Args:
            value: Picklable; of the other processes it is ignored.
        """
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        # Reading the number waits on GPUs too, whose barrier would only be queued.
        self.sum(torch.zeros((), device=self.device)).item()


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the other processes of a run, and leave them at the end.

    A process group that there is, such as that of Ray Train, is used and left as it is. Otherwise
    the variables of ``torchrun`` and ``accelerate launch`` say which process this one is, and
    without them it is alone.

    Args:
        device: ``cpu`` or ``cuda``; of several GPUs each process takes the one of its local rank.
    """
    mine = _own_device(device)
    if dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size(), mine)
        return
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group(BACKENDS[device], timeout=TIMEOUT)
    try:
        yield Group(dist.get_rank() if world > 1 else 0, world, mine)
    finally:
        # One process may have made a group of itself meanwhile, see ``parallel``.
        if dist.is_initialized():
            dist.destroy_process_group()


def _own_device(device: str) -> torch.device:
    if device != "cuda":
        return torch.device(device)
    # A launcher may show each process one GPU of its own.
    index = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
