"""Trained weights as files in the official layouts, which everybody reads."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rayreel.checkpoints import keys, networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.mapped import DTYPES
from rayreel.checkpoints.quantization import cast_weight, meta_tensors, quantize
from rayreel.config.train import LoraSpec
from rayreel.data.storage import Storage
from rayreel.training.adapters import adapter_tensors

Precision = Literal["bfloat16", "float32"]

_PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class _Entry(NamedTuple):
    """A tensor of a file that is written."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def save_adapter(
    storage: Storage,
    name: str,
    trained: Mapping[str, Tensor],
    *,
    spec: LoraSpec,
    precision: Precision,
    reference_scales: tuple[int, int] | None = None,
) -> None:
    """Write an adapter.

    Args:
        storage: Where to.
        name: Of the file; it appears whole.
        trained: Factors by name in the model, whole ones.
        spec: Of the adapter.
        precision: Of the factors.
        reference_scales: Of targets to their references, in space and time; ``None`` where it was
            trained without.

    Raises:
        StorageError: If the storage does not answer.
    """
    dtype = _PRECISIONS[precision]
    entries = {
        key: _Entry(tuple(tensor.shape), dtype, partial(_on_cpu, tensor, dtype))
        for key, tensor in adapter_tensors(trained, spec).items()
    }
    # No alpha, which is in the factors: some loaders would take it into account once more.
    metadata = {
        "format": "pt",
        "lora_rank": str(spec.rank),
        "rayreel_version": version("rayreel"),
        **_reference_metadata(reference_scales),
    }
    _save(storage, name, entries, metadata)


def save_checkpoint(
    storage: Storage,
    name: str,
    files: ModelFiles,
    trained: Mapping[str, Tensor],
    precision: Precision,
) -> None:
    """Write a checkpoint: the file of the transformer with other weights of the transformer.

    Whatever else lies in that file, and its metadata, is there again; adapters of the model are in
    the weights. One tensor is held at a time.

    Args:
        storage: Where to.
        name: Of the file; it appears whole.
        files: The model that the weights are of.
        trained: All weights of the transformer by name in the network, whole ones.
        precision: Of the transformer's weights, but for modulation tables, which keep theirs.

    Raises:
        ValueError: If the weights are not those of the transformer.
        StorageError: If the storage does not answer.
    """
    network, wanted = networks.transformer(files), _PRECISIONS[precision]
    _check_names(trained, quantize(meta_tensors(network.header), "none"))
    file, replaced = network.file, set(network.names.values())
    entries = {
        key: _Entry(file.shape(key), DTYPES[file.dtype(key)], partial(file.tensor, key))
        for key in file.names
        if key not in replaced
    }
    for weight, tensor in trained.items():
        # Without values, for what the dtype will be.
        dtype = cast_weight(weight, tensor.new_empty(0), wanted).dtype
        entry = _Entry(tuple(tensor.shape), dtype, partial(_on_cpu, tensor, dtype))
        entries[keys.file_name(weight, keys.TRANSFORMER)] = entry
    _save(storage, name, entries, dict(file.metadata))


def _check_names(trained: Iterable[str], needed: Iterable[str]) -> None:
    if odd := sorted(set(trained) ^ set(needed)):
        raise ValueError(
            f"expected all weights of the transformer and no others; {len(odd)} differ: {odd[:5]}"
        )


def _on_cpu(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype)


def _reference_metadata(scales: tuple[int, int] | None) -> dict[str, str]:
    """What whoever uses the adapter must know of its references, in the words of both trainers."""
    if scales is None:
        return {}
    space, time = scales
    said = {"reference_downscale_factor": str(space)}
    if space != 1:
        said["reference_spatial_scale_factor"] = str(space)
    if time != 1:
        said["reference_temporal_scale_factor"] = str(time)
    return said


def _save(
    storage: Storage, name: str, entries: Mapping[str, _Entry], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file tensor by tensor; the library's writer wants all of them at once."""
    # As the library does it: every value then lies at a multiple of its size.
    order = sorted(entries, key=lambda key: (-entries[key].dtype.itemsize, key))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for key in order:
        shape, dtype, _ = entries[key]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with storage.local_staging(name) as staged, staged.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in order:
            values = entries[key].read().contiguous().reshape(-1)
            file.write(values.view(torch.uint8).numpy().data)
