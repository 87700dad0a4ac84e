"""Safetensors files of any size that take no disk: a true header, and a hole for the tensors."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1}


def write_sparse(
    path: Path, tensors: Mapping[str, tuple[tuple[int, ...], str]], metadata: Mapping[str, str]
) -> None:
    """Write a file with tensors of these shapes and dtypes, all of them zero."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    data = json.dumps(header).encode()
    data += b" " * (-len(data) % 8)
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    os.truncate(path, 8 + len(data) + end)
