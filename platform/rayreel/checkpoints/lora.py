"""Low-rank adapters: read from files and fused into weights when a model is loaded."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError

_PREFIX = "diffusion_model."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapter:
    """A LoRA file and how much of it to add.

    Attributes:
        file: The file, in the official layout: ``diffusion_model.<module>.lora_A.weight`` of
            ``(r, in)`` and ``.lora_B.weight`` of ``(out, r)``.
        strength: Factor of the product ``B @ A``. Ranks may differ between modules, and ``alpha``
            plays no part.
    """

    file: WeightFile
    strength: float

    def targets(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, str]]:
        """Names of the tensors ``(A, B)`` by the weight that they change, from the header.

        Args:
            shapes: Of the model's weights, by name; what it does not have is left out.

        Raises:
            CheckpointError: If the file holds no adapter or half of one, changes none of the
                weights, or does not fit one.
        """
        halves: dict[str, dict[str, str]] = {}
        for name in self.file.names:
            for half in ("lora_A", "lora_B"):
                if name.endswith(f".{half}.weight"):
                    module = name.removesuffix(f".{half}.weight").removeprefix(_PREFIX)
                    halves.setdefault(f"{module}.weight", {})[half] = name
        if not halves:
            raise CheckpointError(
                f"{self.file.path} is not a LoRA: it has no tensors named *.lora_A.weight"
            )
        if broken := sorted(name for name, pair in halves.items() if len(pair) != 2):
            raise CheckpointError(f"{self.file.path}: lora_A or lora_B is missing of {broken[:5]}")
        known = halves.keys() & shapes.keys()
        if not known:
            raise CheckpointError(
                f"{self.file.path} changes none of this model's weights; "
                f"its first target is {next(iter(halves))}"
            )
        if unknown := sorted(halves.keys() - known):
            log.warning("%s: ignored, not in this model: %s", self.file.path, unknown[:5])
        targets = {name: (halves[name]["lora_A"], halves[name]["lora_B"]) for name in sorted(known)}
        for name, pair in targets.items():
            down, up = map(self.file.shape, pair)
            rank, shape = down[:1], shapes[name]
            if up != (*shape[:1], *rank) or down != (*rank, *shape[1:]):
                raise CheckpointError(
                    f"{self.file.path}: {name} is {shape} in the model; {up} times {down} in the "
                    "LoRA does not fit"
                )
        return targets


def fuse(
    weights: Mapping[str, Tensor],
    adapters: Sequence[Adapter],
    *,
    aggregate_dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """Add adapters to weights: ``W + sum(strength * B @ A)``.

    The sum of products is accumulated in ``aggregate_dtype`` in the order of the adapters, added to
    the weight in that dtype and cast to the weight's own, as the reference does: results are equal
    to the bit for bfloat16 weights.

    Args:
        weights: Weights by name; unchanged, and shared where no adapter touches them.
        adapters: Adapters; those of strength 0 are not read.
        aggregate_dtype: Floating dtype of the products and of the sum.

    Returns:
        The weights with the fused ones replaced.

    Raises:
        CheckpointError: If an adapter changes none of the weights, or a product does not fit.
    """
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    deltas: dict[str, Tensor] = {}
    for adapter in adapters:
        if adapter.strength == 0:
            continue
        for name, halves in adapter.targets(shapes).items():
            down, up = (adapter.file.tensor(half).to(aggregate_dtype) for half in halves)
            if name in deltas:
                deltas[name].addmm_(up, down, alpha=adapter.strength)
            else:
                deltas[name] = (up * adapter.strength) @ down
    fused = dict(weights)
    for name, delta in deltas.items():
        weight = weights[name]
        fused[name] = (delta + weight.to(aggregate_dtype)).to(weight.dtype)
    return fused
