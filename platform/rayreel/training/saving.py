"""Trained weights as files that everybody reads, while training goes on."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.training.group import Group
from rayreel.training.state import TrainState
from rayreel.training.weights import save_adapter, save_checkpoint

FOLDER = "weights"


def weights_name(step: int) -> str:
    """Name of the file of a step, in the run directory."""
    return f"{FOLDER}/step-{step:08d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes weights in the official layout.

    Attributes:
        spec: Of the run.
        files: The model that is trained.
        model: Its transformer, as it is trained.
        storage: The run directory.
        group: All processes of it save together; the first one writes.
        reference_scales: Of references to their targets, in space and time; ``None`` without.
    """

    spec: TrainSpec
    files: ModelFiles
    model: nn.Module
    storage: Storage
    group: Group
    reference_scales: tuple[int, int] | None

    def save(self, state: TrainState) -> str:
        """Write the weights as they are now, or their moving average where there is one.

        Returns:
            Name of the file in the run directory.

        Raises:
            StorageError: If the storage does not answer.
        """
        name = weights_name(state.step)
        with state.ema.applied() if state.ema else nullcontext():
            # A checkpoint has weights that did not learn as well; an adapter has none.
            named = state.named if self.spec.mode == "lora" else self.model.named_parameters()
            tensors = {key: self._whole(tensor) for key, tensor in dict(named).items()}
        if self.group.rank == 0:
            self._write(
                name, {key: tensor for key, tensor in tensors.items() if tensor is not None}
            )
        self.group.barrier()
        return name

    def prune(self, in_use: set[str]) -> None:
        """Remove all but the last ones, and those that somebody still reads."""
        keep = self.spec.checkpoints.keep_last
        if self.group.rank or not keep:
            return
        names = self.storage.names(FOLDER)
        self.storage.remove(name for name in names[:-keep] if name not in in_use)

    def _write(self, name: str, tensors: dict[str, Tensor]) -> None:
        precision = self.spec.checkpoints.precision
        if self.spec.mode == "lora":
            save_adapter(
                self.storage,
                name,
                tensors,
                spec=self.spec.lora,
                precision=precision,
                reference_scales=self.reference_scales,
            )
        else:
            save_checkpoint(self.storage, name, self.files, tensors, precision)

    @torch.no_grad()
    def _whole(self, tensor: Tensor) -> Tensor | None:
        """A weight on the CPU, on the first process; one at a time, as all take part."""
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return whole.detach().cpu().clone() if self.group.rank == 0 else None
