"""Golden vectors: cases found in a folder's ``index.json``, tensors read from its files.

``RAYREEL_VECTORS`` names the folder; without it the full set beside the checkout is used, else the
copy in ``tests/vectors``.
"""

import json
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from rayreel.checkpoints.reader import WeightFile

HERE = Path(__file__).parent


def _folder() -> Path:
    if named := os.environ.get("RAYREEL_VECTORS"):
        return Path(named)
    beside = HERE.parents[1].parent / "shared" / "vectors"
    return beside if beside.is_dir() else HERE.parent / "vectors"


FOLDER = _folder()
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())["files"]


@dataclass(frozen=True)
class Case:
    """One case of one vector file."""

    file: str
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Options of the case as the index states them."""
        return dict(INDEX[self.file]["cases"][self.name])

    @property
    def folder(self) -> str:
        """Generation folder of the file, such as ``v20``."""
        return self.file.split("/", maxsplit=1)[0]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Inputs by name: those of the case that it refers to, overridden by its own."""
        tensors: dict[str, Tensor] = {}
        for reference in ("base_inputs", "inputs"):
            where = str(self.options.get(reference, "")).split(" ", maxsplit=1)[0]
            if where:
                file, _, name = where.rpartition(":")
                tensors |= Case(file or self.file, name).inputs
        return tensors | self.tensors("in")

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """Tensors of one kind (``in``, ``out``, ``out64``, ``dbg``), by name."""
        return {
            name.split("/", 2)[2]: tensor
            for name, tensor in _read(self.file).items()
            if name.startswith(f"{self.name}/{kind}/")
        }

    @cached_property
    def out(self) -> dict[str, Tensor]:
        """Expected outputs by name."""
        return self.tensors("out")

    def assert_close(self, actual: Tensor, expected: Tensor | str, **tolerance: float) -> None:
        """Compare at the tolerance that the index states, elementwise, shapes and dtypes included.

        Args:
            actual: Our result.
            expected: A tensor, or the name of one of this case's outputs.
            tolerance: ``rtol`` and ``atol`` where the index gives other ones in words.
        """
        if isinstance(expected, str):
            expected = self.out[expected]
        stated = INDEX[self.file]["tolerance"]
        torch.testing.assert_close(
            actual,
            expected,
            rtol=tolerance.get("rtol", stated["rtol"]),
            atol=tolerance.get("atol", stated["atol"]),
        )


@cache
def _read(file: str) -> dict[str, Tensor]:
    with safe_open(FOLDER / file, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict


def available(pattern: str) -> list[str]:
    """Files of the folder that match a pattern such as ``v*/transformer.safetensors``."""
    return [file for file in INDEX if fnmatch(file, pattern) and (FOLDER / file).is_file()]


def cases(pattern: str, name: str = "*") -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: matching cases of matching files."""
    return [
        pytest.param(Case(file, case), id=f"{file}:{case}")
        for file in available(pattern)
        for case in INDEX[file]["cases"]
        if fnmatch(case, name)
    ]


def entries(file: str, section: str) -> Any:
    """One section of a JSON vector file; an empty list where the folder has no such file."""
    path = FOLDER / file
    return json.loads(path.read_text())[section] if path.is_file() else []


@cache
def weights(file: str) -> WeightFile:
    """A checkpoint of the folder."""
    return WeightFile(FOLDER / file)


def float32(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as the vectors were computed: stored in bfloat16, used in float32."""
    return {name: tensor.float() for name, tensor in tensors.items()}


def component(file: str, prefix: str) -> dict[str, Tensor]:
    """Float32 weights of one component of a checkpoint, its prefix cut off."""
    source = weights(file)
    return {name: source.tensor(full).float() for name, full in source.under(prefix)}
