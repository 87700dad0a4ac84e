"""Low-rank adapters: read from files, fused into weights, and exchanged in a loaded model."""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rayreel.checkpoints import lora_names
from rayreel.checkpoints.quantization import quantize_per_tensor
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError
from rayreel.models.kernels.rounding import fused_add_round_
from rayreel.models.quantized import FLOAT8, to_float8, widened

log = logging.getLogger(__name__)

Rounding = Literal["nearest", "stochastic"]

_PEFT_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class Factors:
    """Where an adapter keeps its two matrices for one weight.

    Attributes:
        down: Name of A, ``(rank, in)``.
        up: Name of B, ``(out, rank)``.
        scale: Alpha divided by the rank; 1 where the file says nothing of alpha.
    """

    down: str
    up: str
    scale: float


@dataclass(frozen=True)
class Adapter:
    """A LoRA file and how much of it to add.

    Attributes:
        file: The file, in the official layout (``diffusion_model.<module>.lora_A.weight``) or one
            of those that ``lora_names`` lists. Ranks may differ between modules.
        strength: Factor of the product ``B @ A``, beside the scale that the file states.
    """

    file: WeightFile
    strength: float

    @property
    def name(self) -> str:
        """Of the file, without its folder and ending."""
        return self.file.path.stem

    @property
    def reference_scales(self) -> tuple[int, int] | None:
        """Scales of the reference videos that it was trained on, if it says any.

        Target pixels per reference pixel along height and width, and target frames per reference
        frame.

        Raises:
            CheckpointError: If one is no positive whole number.
        """
        names = ("reference_downscale_factor", "reference_temporal_scale_factor")
        stated = [self.file.metadata.get(name) for name in names]
        if not any(stated):
            return None
        for name, value in zip(names, stated, strict=True):
            if value is not None and (not value.isdecimal() or int(value) < 1):
                raise CheckpointError(
                    f"{self.file.path}: metadata {name!r} is {value!r}; expected a positive whole "
                    "number"
                )
        space, time = (int(value or 1) for value in stated)
        return space, time

    def targets(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Factors]:
        """What it holds for each weight that it changes, from the header and its scalars.

        Args:
            shapes: Of the model's weights, by name; what it does not have is left out.

        Raises:
            CheckpointError: If the file holds no adapter, half of one or one of another kind,
                changes none of the weights, does not fit one, or states no number as its alpha.
        """
        parts = self._parts()
        weights = lora_names.spellings(shapes)
        targets: dict[str, Factors] = {}
        modules: dict[str, str] = {}
        unknown = []
        for module, names in sorted(parts.items()):
            meant = sorted(weights.get(module, ()))
            if not meant:
                unknown.append(f"{module}.weight")
            elif len(meant) > 1:
                raise CheckpointError(f"{self.file.path}: {module} may mean any of {meant}")
            elif meant[0] in targets:
                raise CheckpointError(
                    f"{self.file.path}: {modules[meant[0]]} and {module} are both {meant[0]}"
                )
            else:
                modules[meant[0]] = module
                targets[meant[0]] = self._factors(module, names, meant[0], shapes[meant[0]])
        if not targets:
            raise CheckpointError(
                f"{self.file.path} changes none of this model's weights; "
                f"its first target is {unknown[0]}"
            )
        if unknown:
            log.warning("%s: ignored, not in this model: %s", self.file.path, unknown[:5])
        return targets

    def _parts(self) -> dict[str, dict[lora_names.Part, str]]:
        """Names of tensors by module and part."""
        parts = defaultdict[str, dict[lora_names.Part, str]](dict)
        rest = []
        for name in self.file.names:
            if kind := lora_names.other_kind(name):
                raise CheckpointError(
                    f"{self.file.path} is {kind}, not a plain LoRA: it has {name}"
                )
            if (found := lora_names.split(name)) is None:
                rest.append(name)
                continue
            module, part = found
            if part in parts[module]:
                raise CheckpointError(
                    f"{self.file.path}: {parts[module][part]} and {name} are the same twice"
                )
            parts[module][part] = name
        if not any("down" in names or "up" in names for names in parts.values()):
            raise CheckpointError(
                f"{self.file.path} is not a LoRA: it has no tensors named *.lora_A.weight or "
                "*.lora_down.weight"
            )
        if broken := sorted(m for m, names in parts.items() if not {"down", "up"} <= names.keys()):
            raise CheckpointError(f"{self.file.path}: lora_A or lora_B is missing of {broken[:5]}")
        if rest:
            log.warning("%s: ignored, no part of a LoRA: %s", self.file.path, rest[:5])
        return parts

    def _factors(
        self,
        module: str,
        names: Mapping[lora_names.Part, str],
        target: str,
        shape: tuple[int, ...],
    ) -> Factors:
        down, up = self.file.shape(names["down"]), self.file.shape(names["up"])
        if len(down) > 2 and len(down) == len(up):
            raise CheckpointError(
                f"{self.file.path}: {module} is of a convolution, {up} times {down}; "
                "LoRAs of linear layers are supported"
            )
        rank = down[:1]
        if up != (*shape[:1], *rank) or down != (*rank, *shape[1:]):
            raise CheckpointError(
                f"{self.file.path}: {target} is {shape} in the model; {up} times {down} in the "
                "LoRA does not fit"
            )
        try:
            scale = self._scale(module, rank[0], names.get("alpha"))
        except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{self.file.path}: alpha of {module} cannot be read: {error}"
            ) from error
        return Factors(names["down"], names["up"], scale)

    def _scale(self, module: str, rank: int, alpha: str | None) -> float:
        """Alpha by rank, as a tensor of the module, two entries of the metadata or PEFT says."""
        if alpha is not None:
            return float(self.file.tensor(alpha).item()) / rank
        metadata = self.file.metadata
        if "lora_alpha" in metadata:
            # The ratio holds for all modules; narrow ones have smaller ranks than is stated.
            return float(metadata["lora_alpha"]) / float(metadata.get("lora_rank", rank))
        config = self._peft_config
        if "lora_alpha" not in config:
            return 1.0
        patterns = dict(config.get("alpha_pattern") or {})
        own = (patterns[path] for path in patterns if f".{module}".endswith(f".{path}"))
        stated = float(next(own, config["lora_alpha"]))
        return stated / (math.sqrt(rank) if config.get("use_rslora") else rank)

    @cached_property
    def _peft_config(self) -> dict[str, Any]:
        """What diffusers writes as JSON, by component if there are several."""
        config = json.loads(self.file.metadata.get(_PEFT_METADATA, "{}"))
        return {key.removeprefix("transformer."): value for key, value in dict(config).items()}


@dataclass(frozen=True)
class Fusion:
    """Adapters as they change one model's weights: ``W + sum(strength * B @ A)``.

    The sum of products is accumulated in ``aggregate_dtype`` in the order of the adapters, added to
    the weight in that dtype and cast to the weight's own, as the reference does: results are equal
    to the bit for bfloat16 weights. Float8 weights with a scale are widened to float32, and rounded
    again with a scale of their own; those without one are rounded as ``rounding`` says.

    Attributes:
        shapes: Of all weights of the model, by name.
        adapters: In order; those of strength 0 are not looked at.
        aggregate_dtype: Floating dtype of the products and of the sum.
        rounding: Of unscaled float8 weights; by default stochastic on CUDA and to the nearest
            elsewhere, as in the reference. Both give the same result each time.
    """

    shapes: Mapping[str, tuple[int, ...]]
    adapters: Sequence[Adapter]
    aggregate_dtype: torch.dtype = torch.bfloat16
    rounding: Rounding | None = None

    @cached_property
    def contributions(self) -> "dict[str, list[tuple[Adapter, Factors]]]":
        """What is added to each weight that changes, in order.

        Raises:
            CheckpointError: As ``Adapter.targets`` does.
        """
        found = defaultdict[str, list[tuple[Adapter, Factors]]](list)
        for adapter in self.adapters:
            if adapter.strength != 0:
                for name, factors in adapter.targets(self.shapes).items():
                    found[name].append((adapter, factors))
        return dict(found)

    def apply(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add the adapters to some or all of the model's weights, on the devices where these are.

        Args:
            weights: Weights and scales by name; unchanged, and shared where nothing is added.

        Returns:
            The weights with the fused ones replaced.
        """
        fused = dict(weights)
        for name in self.contributions.keys() & weights.keys():
            fused |= self.added(name, weights)
        return fused

    def added(
        self, name: str, weights: Mapping[str, Tensor], device: torch.device | None = None
    ) -> dict[str, Tensor]:
        """A weight that changes, fused, with its new scale if it has one.

        Args:
            name: Of the weight.
            weights: It and its scale.
            device: Where it is fused; by default where it is.
        """
        weight = weights[name] if device is None else weights[name].to(device)
        delta = self._delta(name, weight.device)
        scale = weights.get(f"{name}_scale")
        if weight.dtype not in FLOAT8:
            return {name: (delta + weight.to(delta.dtype)).to(weight.dtype)}
        if scale is not None:
            total = widened(weight, scale.to(delta.device), torch.float32) + delta.float()
            values, scale = quantize_per_tensor(total, weight.dtype)
            return {name: values, f"{name}_scale": scale}
        rounding = self.rounding or ("stochastic" if delta.is_cuda else "nearest")
        if rounding == "stochastic":
            total = fused_add_round_(delta.bfloat16(), weight.contiguous())
        else:
            total = delta + weight.to(delta.dtype)
        return {name: to_float8(total, weight.dtype)}

    def _delta(self, name: str, device: torch.device) -> Tensor:
        """Sum of the products of one weight, ``(out, in)``."""
        delta: Tensor | None = None
        for adapter, factors in self.contributions[name]:
            factor = adapter.strength * factors.scale
            down, up = (
                adapter.file.tensor(half).to(device).to(self.aggregate_dtype)
                for half in (factors.down, factors.up)
            )
            if delta is None:
                delta = (up * factor) @ down
            else:
                delta.addmm_(up, down, alpha=factor)
        assert delta is not None, "every weight that changes has a contribution"
        return delta


@torch.inference_mode(False)
@torch.no_grad()
def exchange_adapters(
    model: nn.Module, base: Mapping[str, Tensor], old: Fusion, new: Fusion
) -> None:
    """Exchange the adapters of a loaded network, without loading it again.

    Weights for which old and new adapters differ are made anew from the base, one at a time: the
    network is then equal to the bit to one that was built with the new adapters on its device, and
    without any to one that never had some. Nothing is subtracted.

    Args:
        model: Network whose weights are those of ``old``; they are rebound, not written to, as they
            may be shared.
        base: Weights and scales by name, without adapters.
        old: What is fused into the network.
        new: What shall be.

    Raises:
        CheckpointError: As for ``Fusion``; the network is then as it was.
    """
    before, after = old.contributions, new.contributions
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        changed = {key: base[key] for key in (name, f"{name}_scale") if key in base}
        if name in after:
            changed |= new.added(name, base, model.get_parameter(name).device)
        for key, tensor in changed.items():
            _rebind(model, key, tensor)


def _rebind(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    current = getattr(module, leaf)
    tensor = tensor.to(current.device, current.dtype)
    if isinstance(current, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=current.requires_grad)
    setattr(module, leaf, tensor)
