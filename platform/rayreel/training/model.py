"""The networks of a training run: one that learns, and one that reads texts for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Fusion
from rayreel.checkpoints.networks import Network
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.train import TrainSpec
from rayreel.data.sources import local_copy
from rayreel.errors import CheckpointError, MediaError
from rayreel.models.quantized import Fp8ScaledLinear
from rayreel.models.text.connector import TextConnectors
from rayreel.models.transformer import Transformer
from rayreel.pipelines.holding import Source, Wanted
from rayreel.training.adapters import attach, load_adapter, target_layers
from rayreel.training.lowbit import check_lowbit, quantize_int8

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Trainable:
    """What is trained, and what it needs.

    Attributes:
        model: In training mode; with an adapter, or learning as a whole.
        connectors: Features of texts to contexts; frozen.
        names: Of the model's parameters that learn.
    """

    model: Transformer
    connectors: TextConnectors
    names: tuple[str, ...]


def check_trainable(files: ModelFiles, spec: TrainSpec, device: torch.device) -> None:
    """Whether a model can be trained as a spec says, from headers alone.

    Args:
        files: Of the model.
        spec: Of the run.
        device: That it trains on.

    Raises:
        SpecError: If there are no layers as ``lora.targets`` says, or torchao is missing.
        CheckpointError: If weights, or adapters of the model, do not fit.
    """
    check_lowbit(spec, device)
    network = _transformer(files, spec)
    outline = network.outline()
    for adapter in files.adapters(distilled=False):
        adapter.targets(network.shapes)
    if spec.mode == "lora":
        target_layers(outline, spec.lora.targets)


def build_trainable(
    files: ModelFiles, spec: TrainSpec, device: torch.device, dtype: torch.dtype
) -> Trainable:
    """Load the networks and make ready what shall learn.

    Adapters of the model are a part of the base. A transformer that will be sharded or offloaded is
    left in the host's memory, from which it goes to the device in parts; a base that is not changed
    lies in its file there.

    Args:
        files: Of the model.
        spec: Of the run.
        device: That it trains on.
        dtype: Of what does not learn; what learns is float32.

    Returns:
        The networks, with weights as ``start`` has them, if the spec names any.

    Raises:
        SpecError: If layers, or what to start from, are not as the spec says.
        CheckpointError: If weights do not fit.
        StorageError: If the store that they lie in does not answer.
    """
    check_lowbit(spec, device)
    with _opened(spec.start) as start:
        if spec.mode == "lora":
            model = _with_adapter(files, spec, device, dtype)
            if start:
                load_adapter(model, start)
        else:
            model = _whole(files, spec, device, start)
        names = tuple(n for n, parameter in model.named_parameters() if parameter.requires_grad)
    connectors = _built(networks.text_connectors(files), device, dtype)
    return Trainable(model.train(), connectors, names)


def _transformer(files: ModelFiles, spec: TrainSpec) -> Network[Transformer]:
    """The transformer with weights held as training wants them."""
    network = networks.transformer(files)
    if spec.mode == "full" or spec.acceleration.quantization == "int8":
        return replace(network, quantization="none")
    if spec.acceleration.quantization == "fp8":
        return replace(network, quantization="fp8_cast")
    return network


def _with_adapter(
    files: ModelFiles, spec: TrainSpec, device: torch.device, dtype: torch.dtype
) -> Transformer:
    network, int8 = _transformer(files, spec), spec.acceleration.quantization == "int8"
    place = torch.device("cpu") if int8 else _place(spec, device)
    model = _built(network, place, dtype, _fusion(files, network))
    for module in model.modules():
        if isinstance(module, Fp8ScaledLinear):
            # Inputs that are rounded to float8 would have gradients in it, where most become 0.
            module.input_scale = None
    if int8:
        quantize_int8(model, device)
        model.to(device)
    attach(model, spec.lora, spec.seed)
    return model


def _whole(
    files: ModelFiles, spec: TrainSpec, device: torch.device, start: WeightFile | None
) -> Transformer:
    network = _transformer(files, spec)
    fusion = None if start else _fusion(files, network)
    if start:
        network = replace(network, file=start)
    model = _built(network, _place(spec, device), torch.float32, fusion).float()
    for parameter in model.parameters():
        # Weights that the file has in float32 are its own memory, which others read.
        parameter.data = parameter.data.clone()
    used = _used(files, spec)
    for name, parameter in model.named_parameters():
        # What no sample reaches has no gradient, and would shrink by weight decay alone.
        parameter.requires_grad_(name in used)
    return model


def _used(files: ModelFiles, spec: TrainSpec) -> set[str]:
    """Names of the weights that a strategy's streams go through."""
    streams, config = spec.strategy.streams(), files.transformer
    if streams.audio is None and config.has_audio:
        config = config.model_copy(update={"streams": "video"})
    elif streams.video is None and config.has_video:
        config = config.audio_only()
    with torch.device("meta"):
        return {name for name, _ in Transformer(config).named_parameters()}


def _place(spec: TrainSpec, device: torch.device) -> torch.device:
    """Where the transformer is built."""
    is_sharded = (
        torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
        and spec.acceleration.sharding == "full"
    )
    return torch.device("cpu") if is_sharded or spec.acceleration.offload else device


def _fusion(files: ModelFiles, network: Network[Transformer]) -> Fusion | None:
    """As it is fused where clips are made."""
    adapters = files.adapters(distilled=False)
    return Fusion(network.shapes, adapters) if adapters else None


def _built(
    network: Network[M], device: torch.device, dtype: torch.dtype, fusion: Fusion | None = None
) -> M:
    def weights(place: torch.device, wanted: Wanted) -> dict[str, Tensor]:
        return network.weights(place, dtype, fusion=fusion, wanted=wanted)

    return Source(network.outline, weights).build(device)


@contextmanager
def _opened(start: str | None) -> Iterator[WeightFile | None]:
    """Weights to start from, wherever they lie."""
    if start is None:
        yield None
        return
    try:
        with local_copy(start) as path:
            yield WeightFile(Path(path))
    except MediaError as error:
        raise CheckpointError(f"start: {error}") from error
