"""One safetensors file, mapped into memory: the header at once, tensors when they are asked for.

The library's own handle for PyTorch maps a file as memory that may be written, and the kernel
refuses that for a file larger than the machine's memory.
"""

import json
import math
import mmap
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rayreel.errors import CheckpointError

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""PyTorch's dtypes by the name that a header has for them."""

Stamp = tuple[int, int]
"""Size of a file, and when it was written."""

# Pages that are written become copies of the process's own, and are only then accounted for; Python
# has no name for the flag yet.
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


class MappedFile:
    """Tensors of one file, which share their memory with it.

    Attributes:
        path: The file.
        metadata: Its ``__metadata__``, values as written.
        header: Shape and dtype of every tensor, in safetensors' spelling, by name.
        stamp: Tells it from a file that takes its place.
    """

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            CheckpointError: If it is not a whole safetensors file.
        """
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise CheckpointError(f"weight file {path} {what}")
        # Before the header, so that one of another file is noticed.
        self.stamp = _stamp(path.stat())
        try:
            # Refuses headers that do not describe the file to the byte.
            with safe_open(path, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
        self.path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries: dict[str, Any] = json.loads(file.read(length))
        self._start = 8 + length
        self.metadata: dict[str, str] = entries.pop("__metadata__", {})
        self._offsets = {name: entry["data_offsets"][0] for name, entry in entries.items()}
        self.header = {
            name: (tuple(entry["shape"]), str(entry["dtype"])) for name, entry in entries.items()
        }

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the file's memory; writing to it does not change the file.

        Raises:
            CheckpointError: If PyTorch has no such dtype.
        """
        shape, stored = self.header[name]
        if stored not in DTYPES:
            raise CheckpointError(
                f"{self.path}: {name} is stored as {stored}; supported: {', '.join(DTYPES)}"
            )
        dtype, count = DTYPES[stored], math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        start = self._start + self._offsets[name]
        if start % dtype.itemsize:
            # Kernels expect values at multiples of their size, which the format does not promise.
            data = bytearray(self._memory[start : start + count * dtype.itemsize])
            return torch.frombuffer(data, dtype=dtype).view(shape)
        return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=start).view(shape)

    @property
    def replaced(self) -> bool:
        """Whether another file, or none, is in its place by now."""
        try:
            return _stamp(self.path.stat()) != self.stamp
        except OSError:
            return True

    @cached_property
    def _memory(self) -> mmap.mmap:
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        with self.path.open("rb") as file:
            # The header says nothing of another file's tensors.
            if _stamp(os.fstat(file.fileno())) != self.stamp:
                raise CheckpointError(f"{self.path} was replaced after it was opened")
            return mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)


def _stamp(status: os.stat_result) -> Stamp:
    # Some network file systems number a file anew whenever it is looked up.
    return status.st_size, status.st_mtime_ns
