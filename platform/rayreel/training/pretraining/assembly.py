"""Weight files of parts to one checkpoint in the official layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from rayreel.checkpoints import keys
from rayreel.checkpoints.quantization import cast_weight
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.load import parse
from rayreel.config.model import TransformerConfig
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, SpecError
from rayreel.training.pretraining.drawn import draw_transformer

_SECTIONS = ("transformer", "vae", "audio_vae", "vocoder")
_VERSION = "2.0.0"


def assemble(
    storage: Storage,
    name: str,
    parts: Sequence[Path],
    architecture: Mapping[str, Any],
    seed: int,
) -> None:
    """Write one checkpoint: all tensors of some files, and a transformer that has learned nothing.

    Args:
        storage: Where to.
        name: Of the file.
        parts: Files that have no tensor in common, nor the transformer.
        architecture: Sections of the metadata.
        seed: Of the transformer.

    Raises:
        SpecError: If the architecture lacks a section, or it is wrong.
        CheckpointError: If a file is none, or two have a tensor in common.
        StorageError: If the storage does not answer.
    """
    if missing := [section for section in _SECTIONS if section not in architecture]:
        raise SpecError(
            f"the architecture has no {', '.join(missing)}; it has {', '.join(architecture)}"
        )
    config = parse(architecture["transformer"], TransformerConfig, where="transformer")
    transformer = draw_transformer(config, seed)
    tensors: dict[str, Tensor] = {
        keys.file_name(key, keys.TRANSFORMER): cast_weight(key, tensor, torch.bfloat16)
        for key, tensor in transformer.state_dict().items()
    }
    for part in parts:
        file = WeightFile(part)
        if both := sorted(tensors.keys() & set(file.names)):
            raise CheckpointError(f"{part}: another file has {both[0]} as well")
        tensors |= {key: file.tensor(key) for key in file.names}
    sections = {section: architecture[section] for section in _SECTIONS}
    metadata = {"config": json.dumps(sections), "model_version": _VERSION, "format": "pt"}
    storage.write_bytes(name, save({k: t.contiguous() for k, t in tensors.items()}, metadata))
