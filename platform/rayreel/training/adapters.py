"""Low-rank adapters that learn: where they attach, how they start, and how they are written."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn

from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.train import LoraSpec, TargetPreset
from rayreel.errors import SpecError
from rayreel.training.lowbit import quiet_torchao
from rayreel.types import seeded_generator

NAME = "default"
"""Of the adapter in the model: a part of its weights' names."""

_PROJECTIONS = ("to_k", "to_q", "to_v", "to_out.0")
_FEED_FORWARD = ("net.0.proj", "net.2")


def _within(modules: Sequence[str], parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{module}.{part}" for module in modules for part in parts)


PRESETS: Mapping[TargetPreset, tuple[str, ...]] = {
    "all": (*_PROJECTIONS, *_within(("ff", "audio_ff"), _FEED_FORWARD)),
    "video": (*_within(("attn1", "attn2"), _PROJECTIONS), *_within(("ff",), _FEED_FORWARD)),
    "audio": (
        *_within(("audio_attn1", "audio_attn2"), _PROJECTIONS),
        *_within(("audio_ff",), _FEED_FORWARD),
    ),
    "cross_modal": _within(("audio_to_video_attn", "video_to_audio_attn"), _PROJECTIONS),
    "attention": _PROJECTIONS,
}
"""Ends of the names of the layers that each preset means."""


def target_layers(model: nn.Module, targets: TargetPreset | tuple[str, ...]) -> tuple[str, ...]:
    """Linear layers that adapters attach to, by name, in the model's order.

    Args:
        model: The transformer, perhaps on the meta device, without adapters.
        targets: A preset, or ends of names, of whole parts: ``attn1.to_q`` means no layer of
            ``audio_attn1``.

    Raises:
        SpecError: If a preset means no layer of the model, or an end is that of none.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    ends = targets if isinstance(targets, tuple) else PRESETS[targets]
    found = {end: {name for name in layers if f".{name}".endswith(f".{end}")} for end in ends}
    if isinstance(targets, tuple):
        for end in (end for end, names in found.items() if not names):
            raise SpecError(
                f"lora.targets: {end!r} is the end of no linear layer of the transformer; nearest "
                f"are {_nearest(end, layers)}; or one of {', '.join(get_args(TargetPreset))}"
            )
    wanted = set[str]().union(*found.values())
    if not wanted:
        raise SpecError(
            f"lora.targets: {targets or 'none'} means no layer of this transformer; it has "
            f"{', '.join(p for p in PRESETS if p != targets and _has(layers, PRESETS[p]))}"
        )
    return tuple(name for name in layers if name in wanted)


def attach(model: nn.Module, spec: LoraSpec, seed: int) -> None:
    """Put an adapter beside linear layers, which does nothing yet; all else is frozen.

    Factors are float32 on the device of their layer. What A starts with depends on the seed and the
    layer's name alone: not on the other targets, their order, or what was drawn before.

    Args:
        model: The transformer; its layers are replaced by such as hold them as ``base_layer``.
        spec: Of the adapter.
        seed: Of the run.

    Raises:
        SpecError: As ``target_layers`` does.
    """
    names = target_layers(model, spec.targets)
    with quiet_torchao():
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - slow

        config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha or spec.rank,
            lora_dropout=spec.dropout,
            target_modules=list(names),
        )
        # Without memory at first, so that nothing is drawn from the process's own generator.
        inject_adapter_in_model(config, model, NAME, low_cpu_mem_usage=True)
    for name, layer in _adapted(model):
        device = layer.base_layer.weight.device
        down, up = layer.lora_A[NAME], layer.lora_B[NAME]
        first = torch.empty(down.weight.shape)
        generator = seeded_generator(seed, f"lora/{name}")
        nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        down.weight = nn.Parameter(first.to(device))
        up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=device))


def adapter_tensors(trained: Mapping[str, Tensor], spec: LoraSpec) -> dict[str, Tensor]:
    """Factors as files name and scale them: loaders add ``strength * B @ A``.

    Args:
        trained: Factors by name in the model, whole ones.
        spec: Of the adapter; alpha by rank becomes a part of B.

    Returns:
        Float32, ``diffusion_model.<layer>.lora_A.weight`` ``(rank, in)`` and ``lora_B``
        ``(out, rank)``.
    """
    scale = (spec.alpha or spec.rank) / spec.rank
    tensors = {}
    for name, tensor in trained.items():
        layer, factor = name.removesuffix(f".{NAME}.weight").rsplit(".", 1)
        whole = tensor.detach().float()
        tensors[f"diffusion_model.{layer}.{factor}.weight"] = (
            whole * scale if factor == "lora_B" else whole
        )
    return tensors


@torch.no_grad()
def load_adapter(model: nn.Module, file: WeightFile) -> None:
    """Start from an adapter that was saved, by whomever.

    Args:
        model: With an adapter of the same layers and rank; its alpha may be another one.
        file: In one of the layouts that ``Adapter`` reads.

    Raises:
        CheckpointError: If the file is no adapter of this model.
        SpecError: If it is of other layers or of another rank.
    """
    layers = {f"{name}.weight": layer for name, layer in _adapted(model)}
    every = {
        f"{name.removesuffix('.base_layer')}.weight": (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }
    found = Adapter(file, 1.0).targets(every)
    for theirs, what in (
        (layers.keys() - found.keys(), "has nothing for"),
        (found.keys() - layers.keys(), "is also of"),
    ):
        if theirs:
            raise SpecError(
                f"start: {file.path} {what} {min(theirs).removesuffix('.weight')} and "
                f"{len(theirs) - 1} more layers, other than lora.targets; set it as it was then"
            )
    for name, factors in found.items():
        layer, (rank, _) = layers[name], file.shape(factors.down)
        if rank != layer.r[NAME]:
            raise SpecError(
                f"start: {file.path} is of rank {rank}, lora.rank is {layer.r[NAME]}; "
                f"set lora.rank: {rank}"
            )
        layer.lora_A[NAME].weight.copy_(file.tensor(factors.down))
        up = file.tensor(factors.up).float() * (factors.scale / layer.scaling[NAME])
        layer.lora_B[NAME].weight.copy_(up)


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """The model as it was before ``attach``, for as long as nothing learns."""
    layers = [layer for _, layer in _adapted(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers with an adapter, by the name of the layer."""
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415 - slow

    yield from ((n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer))


def _has(layers: Iterable[str], ends: Sequence[str]) -> bool:
    return any(f".{name}".endswith(f".{end}") for name in layers for end in ends)


def _nearest(end: str, layers: Sequence[str]) -> str:
    """Ends that there are, the most alike ones."""
    parts = [name.split(".") for name in layers]
    known = {".".join(path[start:]) for path in parts for start in range(len(path))}
    near = difflib.get_close_matches(end, sorted(known), n=3, cutoff=0)
    return ", ".join(near)
