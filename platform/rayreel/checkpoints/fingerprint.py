"""Identity of weight files: cheap for 40 GB, equal for copies, different for other weights."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from rayreel.checkpoints.reader import WeightFile
from rayreel.data.hashing import canonical_json

_SAMPLE = 256


def fingerprint_file(path: Path) -> str:
    """Hash of a weight file: its header, and bytes sampled from the middle of every tensor.

    The order of the header's entries, in which writers differ, does not count.

    Args:
        path: Safetensors file, or the index of a sharded one.

    Returns:
        32 hexadecimal digits.

    Raises:
        CheckpointError: If it is not a safetensors file.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in WeightFile(path).parts:
        _add(digest, part)
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        digest.update(canonical_json(header).encode())
        spans = (entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
        for start, end in sorted(spans):
            middle = max(start, (start + end - _SAMPLE) // 2)
            file.seek(8 + length + middle)
            digest.update(file.read(min(_SAMPLE, end - middle)))


def fingerprint_tensors(file: WeightFile, names: Mapping[str, str]) -> str:
    """Hash of some tensors, wherever they lie: headers, and bytes sampled from their middle.

    Args:
        file: Holds them.
        names: Names in the file by name in the network.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for new, old in sorted(names.items()):
        digest.update(canonical_json([new, file.shape(old), file.dtype(old)]).encode())
        data = file.tensor(old).reshape(-1).view(torch.uint8)
        middle = max(0, (len(data) - _SAMPLE) // 2)
        digest.update(data[middle : middle + _SAMPLE].numpy().tobytes())
    return digest.hexdigest()


def fingerprint_folder(path: Path) -> str:
    """Hash of a language model's folder: weights as above, JSON files and templates whole."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.iterdir()):
        if file.suffix == ".safetensors":
            digest.update(f"{file.name}:{fingerprint_file(file)}".encode())
        elif file.suffix in {".json", ".jinja"}:
            digest.update(file.name.encode() + hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()
