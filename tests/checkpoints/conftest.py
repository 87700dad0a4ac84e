"""The tiny model set, and damaged copies of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rayreel.checkpoints.tiny import tiny_spec, write_tiny
from rayreel.config.jobs import ModelSpec


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> ModelSpec:
    """The tiny set as a spec names it."""
    return tiny_spec(tiny_folder)


@pytest.fixture
def rewritten(tmp_path: Path) -> Callable[..., Path]:
    """Copies a safetensors file with other tensors or metadata."""

    def rewrite(
        source: str | Path,
        edit: Callable[[dict[str, Tensor]], object] | None = None,
        **metadata: str,
    ) -> Path:
        tensors = load_file(source)
        if edit:
            edit(tensors)
        with safe_open(source, "pt") as file:
            old = file.metadata()
        target = tmp_path / Path(source).name
        save_file(tensors, target, {**old, **metadata})
        return target

    return rewrite
