"""Everything that a run needs to go on."""

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from rayreel.config.base import StrictModel
from rayreel.config.train import OptimizationSpec
from rayreel.training.ema import Ema
from rayreel.training.group import Group
from rayreel.training.optimizers import make_state, optimizer_for
from rayreel.training.order import Position
from rayreel.training.parallel import local

PROCESS = "process/"
"""What names of tensors begin with that belong to one process."""


class Progress(StrictModel):
    """How far a run has come.

    Attributes:
        world: Number of processes that it was trained by.
    """

    step: int = Field(ge=0, description="optimiser steps done")
    epoch: int = Field(ge=0, description="of the next step")
    epoch_step: int = Field(ge=0, description="place of the next step in its epoch")
    samples: int = Field(ge=0, description="seen so far")
    world: int = Field(ge=1, description="processes that trained")


class TrainState:
    """Weights that learn, their optimiser and average, and how far the run has come.

    Attributes:
        named: Weights that learn, by name in the model.
        optimizer: Of those weights.
        ema: Their moving average, where the spec wants one.
        step: Optimiser steps done.
        position: Of the next step.
        samples: Seen so far.
    """

    def __init__(self, model: nn.Module, spec: OptimizationSpec, group: Group) -> None:
        """Begin a run.

        Args:
            model: As ``parallelise`` has left it.
            spec: Of the run.
            group: Processes that train.
        """
        self._group = group
        self.named = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.optimizer = optimizer_for(self.parameters, spec)
        self.ema = Ema(self.named, spec.ema) if spec.ema else None
        self.step = 0
        self.position = Position(0, 0)
        self.samples = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights that learn."""
        return list(self.named.values())

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return Progress(
            step=self.step,
            epoch=self.position.epoch,
            epoch_step=self.position.step,
            samples=self.samples,
            world=self._group.world,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by names that do not depend on how weights are split.

        Those of weights, averages and float32 moments share their memory, so values can be loaded
        into them; moments of few bits are widened copies.
        """
        found = {f"weights/{name}": one.detach() for name, one in self.named.items()}
        found |= {name: _widened(moment) for name, moment in self._moments()}
        if self.ema:
            found |= {f"ema/{name}": one for name, one in self.ema.average.items()}
        return found

    def own_tensors(self) -> dict[str, Tensor]:
        """What only this process can go on with, as long as there are as many of them.

        The states of its random generators, which dropout draws from, and its moments of few bits:
        once widened they may not become the same bits again.
        """
        found = {"random/cpu": torch.get_rng_state()}
        if self._group.device.type == "cuda":
            found["random/cuda"] = torch.cuda.get_rng_state(self._group.device)
        for name, moment in self._moments():
            found |= {f"{name}/{part}": one for part, one in _parts(moment).items()}
        return {f"{self.own_prefix}{name}": tensor for name, tensor in found.items()}

    @property
    def own_prefix(self) -> str:
        """What the names of ``own_tensors`` begin with."""
        return f"{PROCESS}{self._group.rank}/"

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Go on from where a run was.

        Args:
            tensors: What ``tensors`` gave, with other values by now. If as many processes go on,
                what ``own_tensors`` gave too.
            progress: Of that run.
        """
        for name, moment in self._moments():
            parts = {f"{self.own_prefix}{name}/{part}": one for part, one in _parts(moment).items()}
            if all(
                part in tensors and tensors[part].shape == one.shape for part, one in parts.items()
            ):
                for part, one in parts.items():
                    one.copy_(tensors[part])
            else:
                local(moment).copy_(local(tensors[name]))
        if (random := tensors.get(f"{self.own_prefix}random/cpu")) is not None:
            torch.set_rng_state(random)
        random = tensors.get(f"{self.own_prefix}random/cuda")
        if random is not None and self._group.device.type == "cuda":
            torch.cuda.set_rng_state(random, self._group.device)
        self.step, self.samples = progress.step, progress.samples
        self.position = Position(progress.epoch, progress.epoch_step)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """What the optimiser remembers, by name."""
        make_state(self.optimizer)
        for name, weight in self.named.items():
            kept: dict[str, Tensor] = self.optimizer.state[weight]
            for moment, value in kept.items():
                yield f"optimizer/{name}/{moment}", value


def _parts(moment: Tensor) -> dict[str, Tensor]:
    """What a moment of few bits consists of; nothing for others."""
    held = local(moment)
    if not is_traceable_wrapper_subclass(held):
        return {}
    names, _ = held.__tensor_flatten__()
    return {name: getattr(held, name) for name in names}


def _widened(tensor: Tensor) -> Tensor:
    if not _parts(tensor):
        return tensor
    values = local(tensor).dequantize()
    if not isinstance(tensor, DTensor):
        return values
    return DTensor.from_local(
        values,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )
