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

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Pairs ``(A, B)`` by the name of the weight that they change.

        Raises:
            CheckpointError: If the file holds no adapter, or half of one.
        """
        halves: dict[str, dict[str, Tensor]] = {}
        for name in self.file.names:
            for half in ("lora_A", "lora_B"):
                if name.endswith(f".{half}.weight"):
                    module = name.removesuffix(f".{half}.weight").removeprefix(_PREFIX)
                    halves.setdefault(f"{module}.weight", {})[half] = self.file.tensor(name)
        if not halves:
            raise CheckpointError(
                f"{self.file.path} is not a LoRA: it has no tensors named *.lora_A.weight"
            )
        if broken := sorted(name for name, pair in halves.items() if len(pair) != 2):
            raise CheckpointError(f"{self.file.path}: lora_A or lora_B is missing of {broken[:5]}")
        return {name: (pair["lora_A"], pair["lora_B"]) for name, pair in halves.items()}


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
    deltas: dict[str, Tensor] = {}
    for adapter in adapters:
        if adapter.strength == 0:
            continue
        factors = adapter.factors()
        known = factors.keys() & weights.keys()
        if not known:
            raise CheckpointError(
                f"{adapter.file.path} changes none of this model's weights; "
                f"its first target is {next(iter(factors))}"
            )
        if unknown := sorted(factors.keys() - known):
            log.warning("%s: ignored, not in this model: %s", adapter.file.path, unknown[:5])
        for name in known:
            down, up = (factor.to(aggregate_dtype) for factor in factors[name])
            shape = (up.shape[0], down.shape[1])
            if shape != tuple(weights[name].shape):
                raise CheckpointError(
                    f"{adapter.file.path}: {name} is {tuple(weights[name].shape)} in the model, "
                    f"{shape} in the LoRA"
                )
            if name in deltas:
                deltas[name].addmm_(up, down, alpha=adapter.strength)
            else:
                deltas[name] = (up * adapter.strength) @ down
    fused = dict(weights)
    for name, delta in deltas.items():
        weight = weights[name]
        fused[name] = (delta + weight.to(aggregate_dtype)).to(weight.dtype)
    return fused
