"""What the loop needs to know of a network that learns from scratch."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.keys import Rules, component_tensors, file_name
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.base import Architecture
from rayreel.config.pretrain import StretchSpec
from rayreel.data.storage import Storage

A = TypeVar("A", bound=Architecture)
M = TypeVar("M", bound=nn.Module)


class Part(ABC):
    """A network and what it learns.

    Attributes:
        network: Its weights; of some, a pair of networks that learn together.
    """

    network: nn.Module

    def begin(self) -> None:
        """Set, once before the first step, what takes long to find; most have nothing of that."""
        return

    @abstractmethod
    def losses(self, step: int, stretch: StretchSpec) -> Mapping[str, Tensor]:
        """What is wrong with the network's answers to clips that are drawn from the step alone.

        Args:
            step: From 0; decides clips and noise.
            stretch: Their number and shape.

        Returns:
            Scalars; ``loss`` is what is made smaller, the rest is told.
        """

    @abstractmethod
    def write(self, storage: Storage) -> None:
        """Leave what was learned, in the official layout.

        Args:
            storage: The run directory.

        Raises:
            StorageError: If it does not answer.
        """


def file_tensors(network: nn.Module, rules: Rules) -> dict[str, Tensor]:
    """Weights and statistics of a network under their names in the official files."""
    return {file_name(name, rules): tensor for name, tensor in network.state_dict().items()}


def set_statistics(networks: Iterable[nn.Module], latents: Tensor, *, alike: bool = False) -> None:
    """Tell the halves of a VAE what is usual of its latents.

    Args:
        networks: Both halves.
        latents: ``(N, C)``, not normalised.
        alike: Whether all channels are divided by one number, so that some stay larger.
    """
    deviation = latents.std(0)
    if alike:
        deviation = deviation.square().mean().sqrt().expand_as(deviation)
    for network in networks:
        network.get_buffer("per_channel_statistics.mean-of-means").copy_(latents.mean(0))
        network.get_buffer("per_channel_statistics.std-of-means").copy_(deviation)


def read_network(
    path: str,
    section: str,
    architecture: type[A],
    make: Callable[[A], M],
    rules: Rules,
) -> M:
    """A network that was trained before, in float32, without gradients.

    Args:
        path: Its weight file.
        section: Where in the metadata its architecture is.
        architecture: Reads that.
        make: Makes the network, without weights.
        rules: Where in the file they lie.

    Raises:
        CheckpointError: If they do not fit.
    """
    file = WeightFile(Path(path))
    config = file.section(section, architecture)
    tensors = component_tensors(file, rules)
    return build(lambda: make(config), tensors, dtype=torch.float32, source=path)


def write_weights(
    storage: Storage, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Write a weight file in bfloat16.

    Args:
        storage: The run directory.
        name: Of the file.
        tensors: By their names in the official files.
        config: Sections of the metadata that say how the networks are built.

    Raises:
        StorageError: If it does not answer.
    """
    held = {key: tensor.detach().to(torch.bfloat16).contiguous() for key, tensor in tensors.items()}
    storage.write_bytes(name, save(held, {"config": json.dumps(config), "format": "pt"}))
