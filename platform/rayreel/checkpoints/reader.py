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
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rayreel.config.base import Architecture
from rayreel.config.load import faults
from rayreel.errors import CheckpointError

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file: names, shapes and dtypes from its header, tensors when asked for.

    Attributes:
        path: The file.
    """

    path: Path
    _handle: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Open it; raises ``CheckpointError`` if it is not a safetensors file."""
        if not self.path.is_file():
            what = "is not a file" if self.path.exists() else "does not exist"
            raise CheckpointError(f"weight file {self.path} {what}")
        try:
            handle = safe_open(self.path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.path} is not a safetensors file: {error}") from error
        object.__setattr__(self, "_handle", handle)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The file's own ``__metadata__``, values as written."""
        return dict(self._handle.metadata() or {})

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
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self._handle.keys()))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return tuple(self._handle.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Dtype of a tensor in safetensors' spelling (``BF16``, ``F32``), from the header."""
        return str(self._handle.get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped into memory."""
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor

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
