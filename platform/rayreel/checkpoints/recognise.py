"""A folder of weight files becomes a model spec: every file is known by what its header says."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayreel.checkpoints.kinds import is_packed_text_encoder, kinds
from rayreel.checkpoints.reader import INDEX_SUFFIX, WeightFile
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelSpec
from rayreel.config.model import UpsamplerConfig
from rayreel.errors import CheckpointError

log = logging.getLogger(__name__)

# Official sets keep components in folders of their own, and no deeper.
_DEPTH = 2
_REQUIRED = ("transformer", "gemma")
# Adapters do not say what they are for; the published ones that distil have this in their names.
_DISTILLED = "distilled-lora"


@dataclass
class Found:
    """What lies in a folder.

    Attributes:
        fields: Of a ``ModelSpec``, as far as the folder fills them.
        loras: Adapters that are left out, as nothing says what they are for.
        faults: What keeps it from being one model, a sentence each.
        notes: What was left out, a sentence each.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    loras: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_model(folder: Path) -> Found:
    """Look through a folder for the files of one model.

    Args:
        folder: Searched two levels deep; no tensor is read.
    """
    found = Found()
    homes: dict[str, list[Path]] = {}
    for path in _weight_files(folder):
        try:
            file = WeightFile(path)
            roles = _roles(file)
        except CheckpointError as error:
            found.faults.append(str(error))
            continue
        if not roles:
            found.notes.append(f"{path}: left out, it is no file of this model family")
        for role in roles:
            homes.setdefault(role, []).append(path)
    homes.setdefault("gemma", []).extend(_language_models(folder))
    _place(homes, found)
    found.faults += [
        f"{folder}: no {_NAMES[role]} in this folder" for role in _REQUIRED if not homes.get(role)
    ]
    return found


def model_in(folder: Path) -> ModelSpec:
    """The model in a folder; what is left out of it is logged.

    Raises:
        CheckpointError: If it holds none, damaged files, or more than one of a kind.
    """
    found = find_model(folder)
    if found.faults:
        raise CheckpointError("\n".join(found.faults))
    for note in found.notes:
        log.warning("%s", note)
    return ModelSpec(**found.fields)


_NAMES = {
    "transformer": "transformer",
    "gemma": "text encoder (a Gemma folder, or a packed file)",
    "text_projection": "text projection",
    "video_vae": "video VAE",
    "audio_vae": "audio VAE",
    "vocoder": "vocoder",
    "upsampler": "spatial x2 upsampler",
    "distilled_lora": "distilled LoRA",
}


def _roles(file: WeightFile) -> list[str]:
    if is_packed_text_encoder(file):
        return ["gemma"]
    roles = [str(kind) for kind in kinds(file)]
    if roles == ["lora"]:
        return ["distilled_lora" if _DISTILLED in file.path.stem else "lora"]
    if roles == ["upsampler"]:
        config = file.section(None, UpsamplerConfig)
        doubles = config.spatial_upsample and config.spatial_scale == 2
        return ["upsampler" if doubles and not config.temporal_upsample else "other upsampler"]
    return roles


def _place(homes: dict[str, list[Path]], found: Found) -> None:
    for role, paths in homes.items():
        if role in {"lora", "other upsampler"}:
            kind = "LoRA" if role == "lora" else "upsampler"
            found.loras += paths if role == "lora" else []
            found.notes += [f"{path}: left out, name this {kind} in a model spec" for path in paths]
        elif len(paths) > 1:
            named = ", ".join(map(str, paths))
            found.faults.append(
                f"{len(paths)} files hold a {_NAMES[role]}, name one in a model spec: {named}"
            )
        elif paths:
            path = str(paths[0])
            found.fields[role] = AdapterSpec(path=path) if role == "distilled_lora" else path
    whole = found.fields.get("transformer")
    if whole and found.fields.get("video_vae") == whole:
        others = {role: path for role, path in found.fields.items() if path != whole}
        found.fields = {"checkpoint": whole, **others}


def _weight_files(folder: Path) -> Iterator[Path]:
    """Files to look into; a sharded one is its index, and what a language model owns is left."""
    patterns = ["/".join(["*"] * depth) for depth in range(1, _DEPTH + 1)]
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    indices = [path for path in paths if path.name.endswith(INDEX_SUFFIX)]
    owned = set(_language_models(folder))
    shards = {path.with_name(name) for path in indices for name in _shards(path)}
    for path in paths:
        weights = path in indices or path.suffix == ".safetensors"
        if weights and path.is_file() and path not in shards and path.parent not in owned:
            yield path


def _shards(index: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        # The index itself is refused when it is opened.
        return []


def _language_models(folder: Path) -> list[Path]:
    """Folders with the configuration of a language model, whichever it is."""
    configs = [*folder.glob("config.json"), *folder.glob("*/config.json")]
    return [
        path.parent
        for path in sorted(configs)
        if "model_type" in path.read_text("utf-8", "replace")
    ]
