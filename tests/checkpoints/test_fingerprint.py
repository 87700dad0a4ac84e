"""Identity of weight files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints import fingerprint
from rayreel.checkpoints.fingerprint import fingerprint_file, fingerprint_folder
from rayreel.errors import CheckpointError

TENSORS = {
    "small": torch.arange(3.0),
    "empty": torch.zeros(0),
    "large": torch.arange(100_000.0).view(100, 1000),
}


def save(path: Path, metadata=None, **changed) -> str:
    save_file({**TENSORS, **changed}, path, metadata)
    return fingerprint_file(path)


@pytest.fixture
def original(tmp_path):
    return save(tmp_path / "original.safetensors", {"model_version": "2.0", "config": "{}"})


def test_a_copy_under_another_name_is_the_same(tmp_path, original):
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(tmp_path / "original.safetensors", tmp_path / "elsewhere" / "b.safetensors")
    assert fingerprint_file(Path(copy)) == original
    assert len(original) == 32


def test_the_order_of_the_header_does_not_count(tmp_path, original):
    data = (tmp_path / "original.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    header = json.dumps(dict(reversed(entries.items()))).encode()
    path = tmp_path / "reordered.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert fingerprint_file(path) == original


@pytest.mark.parametrize("name", ["small", "large"])
def test_one_other_tensor_is_another_file(tmp_path, original, name):
    metadata = {"model_version": "2.0", "config": "{}"}
    assert save(tmp_path / "b.safetensors", metadata, **{name: TENSORS[name] + 1}) != original


def test_other_metadata_is_another_file(tmp_path, original):
    assert save(tmp_path / "b.safetensors", {"model_version": "2.3", "config": "{}"}) != original


def test_names_and_shapes_count(tmp_path, original):
    metadata = {"model_version": "2.0", "config": "{}"}
    reshaped = TENSORS["large"].view(1000, 100)
    assert save(tmp_path / "b.safetensors", metadata, large=reshaped) != original
    assert save(tmp_path / "c.safetensors", metadata, another=torch.zeros(1)) != original


def test_little_of_a_large_tensor_is_read(tmp_path, monkeypatch):
    read = 0

    class Counting:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def seek(self, position):
            return self._file.seek(position)

        def read(self, count):
            nonlocal read
            read += count
            return self._file.read(count)

    path = tmp_path / "original.safetensors"
    before = save(path)
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: Counting(opened(self, mode)))
    assert fingerprint.fingerprint_file(path) == before
    assert read < path.stat().st_size / 100


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.safetensors").write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        fingerprint_file(tmp_path / "a.safetensors")


def test_a_folder_is_its_weights_and_its_json_files(tiny_folder, tmp_path):
    copy = tmp_path / "gemma"
    shutil.copytree(tiny_folder / "gemma-3-tiny", copy)
    before = fingerprint_folder(copy)
    assert before == fingerprint_folder(tiny_folder / "gemma-3-tiny")
    (copy / "README.md").write_text("a model", "utf-8")
    assert fingerprint_folder(copy) == before
    (copy / "tokenizer_config.json").write_text("{}", "utf-8")
    assert fingerprint_folder(copy) != before


def test_other_weights_make_another_folder(tiny_folder, tmp_path):
    copy = tmp_path / "gemma"
    shutil.copytree(tiny_folder / "gemma-3-tiny", copy)
    save_file(TENSORS, copy / "model.safetensors")
    assert fingerprint_folder(copy) != fingerprint_folder(tiny_folder / "gemma-3-tiny")
