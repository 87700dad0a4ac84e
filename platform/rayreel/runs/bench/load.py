"""Loading of a weight file: ours is mapped into memory, ``torch.load`` copies.

Both make the same network from the same tensors in float32, files in the page cache. Two times are
taken: until the network is ready to run, and until every byte of it was read once besides, since a
mapped page costs something when it is first touched.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.reader import WeightFile
from rayreel.models.transformer import Transformer
from rayreel.runs.bench.networks import Line, transformer_config
from rayreel.runs.bench.spec import LoadCase
from rayreel.runs.bench.timing import race


def compare_loading(case: LoadCase, seconds: float) -> list[Line]:
    """Times until the network is ready, and until it was read."""
    config = transformer_config(case.width, case.layers)
    with tempfile.TemporaryDirectory() as folder:
        mapped, copied = Path(folder, "weights.safetensors"), Path(folder, "weights.pt")
        state = Transformer(config).state_dict()
        size = sum(tensor.nbytes for tensor in state.values())
        save_file(state, mapped)
        torch.save(state, copied)
        del state

        def make(tensors: Mapping[str, Tensor]) -> Transformer:
            return build(lambda: Transformer(config), tensors)

        def ours() -> Transformer:
            file = WeightFile(mapped)
            return make({name: file.tensor(name) for name in file.names})

        def theirs() -> Transformer:
            return make(torch.load(copied, weights_only=True, mmap=False))

        measures: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "ready": (ours, theirs),
            "read": (lambda: _read(ours()), lambda: _read(theirs())),
        }
        return [
            {
                "until": until,
                "gigabytes": round(size / 1e9, 2),
                **race(*calls, seconds).line("torch.load"),
            }
            for until, calls in measures.items()
        ]


def _read(model: Transformer) -> float:
    return sum(float(tensor.sum()) for tensor in model.state_dict().values())
