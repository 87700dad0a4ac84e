"""Safetensors files and the metadata that says what they hold.

Tensors are memory-mapped: opening a file reads its header alone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor

from rayreel.checkpoints.mapped import MappedFile, Stamp
from rayreel.config.base import Architecture
from rayreel.config.load import faults
from rayreel.errors import CheckpointError

A = TypeVar("A", bound=Architecture)

INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True)
class WeightFile:
    """Weights from one or several safetensors files, read as one file.

    One that was opened before its file was replaced is not equal to one that was opened after.
    Names, shapes and dtypes come from the headers, tensors when they are asked for.

    Attributes:
        path: A safetensors file, or the ``*.safetensors.index.json`` of a sharded one.
        parts: The safetensors files, in order; metadata is that of the first.
    """

    path: Path
    parts: tuple[Path, ...] = ()
    _files: tuple[MappedFile, ...] = field(init=False, repr=False, compare=False)
    _stamps: tuple[Stamp, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the files; raises ``CheckpointError`` if one is not a safetensors file."""
        object.__setattr__(self, "parts", self.parts or _parts(self.path))
        object.__setattr__(self, "_files", tuple(map(MappedFile, self.parts)))
        object.__setattr__(self, "_stamps", tuple(file.stamp for file in self._files))

    @property
    def replaced(self) -> bool:
        """Whether other files, or none, are in the place of these by now."""
        return any(file.replaced for file in self._files)

    def joined(self, *others: "WeightFile") -> "WeightFile":
        """This file with the tensors of others beside its own; metadata stays this file's.

        A component whose weights lie in two files is so one file again.
        """
        more = (part for other in others for part in other.parts)
        return WeightFile(self.path, tuple(dict.fromkeys((*self.parts, *more))))

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The file's own ``__metadata__``, values as written."""
        return self._files[0].metadata

    @cached_property
    def config(self) -> dict[str, Any]:
        """Parsed ``config`` metadata; empty where the file has none.

        Raises:
            CheckpointError: If it is not a JSON object.
        """
        text = self.metadata.get("config", "{}")
        try:
            config = json.loads(text)
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{self.path}: metadata 'config' is not JSON: {error}") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.path}: metadata 'config' is not a JSON object")
        return config

    @property
    def model_version(self) -> tuple[int, ...]:
        """Leading integers of ``model_version``, ``-`` read as ``.``; empty where there is none."""
        parts = []
        for part in self.metadata.get("model_version", "").replace("-", ".").split("."):
            if not part.isdecimal():
                break
            parts.append(int(part))
        return tuple(parts)

    @cached_property
    def _file_of(self) -> dict[str, MappedFile]:
        """File of every tensor; the first one wins where two files have the same name."""
        return {name: file for file in reversed(self._files) for name in file.header}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self._file_of))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self._file_of[name].header[name][0]

    def dtype(self, name: str) -> str:
        """Dtype of a tensor in safetensors' spelling (``BF16``, ``F32``), from the header."""
        return self._file_of[name].header[name][1]

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped into memory."""
        return self._file_of[name].tensor(name)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(part.stat().st_size for part in self.parts)

    def section(self, name: str | None, kind: type[A]) -> A:
        """One section of the config, validated.

        Args:
            name: Section such as ``"transformer"``; ``None`` where the config is flat (upsamplers).
            kind: Architecture to validate it as.

        Raises:
            CheckpointError: If the section is missing or its architecture is not supported.
        """
        section = self.config if name is None else self.config.get(name)
        if not section:
            raise CheckpointError(
                f"{self.path}: its metadata has no config{f' section {name!r}' if name else ''}; "
                "expected a file in the official LTX-2 layout"
            )
        try:
            return kind.model_validate(section)
        except ValidationError as error:
            raise CheckpointError(
                f"{self.path}: config{f'.{name}' if name else ''} is not supported: "
                + "; ".join(faults(error, kind))
            ) from error

    def under(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Names that start with a prefix, as pairs (name without it, full name)."""
        for name in self.names:
            if name.startswith(prefix):
                yield name[len(prefix) :], name


def _parts(path: Path) -> tuple[Path, ...]:
    """The safetensors files behind a path: itself, or the shards that an index names."""
    if not path.name.endswith(INDEX_SUFFIX) or not path.is_file():
        return (path,)
    try:
        shards = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not an index of shards: expected a JSON object with a 'weight_map'"
        ) from error
    # An index names files of its own folder, and nothing else.
    named = sorted(map(str, shards))
    if strange := [s for s in named if Path(s).name != s or Path(s).suffix != ".safetensors"]:
        raise CheckpointError(f"{path} names a shard outside its folder: {strange[0]}")
    if not named:
        raise CheckpointError(f"{path} names no shard")
    return tuple(path.with_name(shard) for shard in named)
