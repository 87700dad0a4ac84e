"""Weight files: headers, metadata, and what is said about files that are none."""

import json
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints.reader import WeightFile
from rayreel.config.base import Architecture
from rayreel.config.model import TransformerConfig
from rayreel.errors import CheckpointError


class Net(Architecture):
    """A section of a config."""

    class Inner(Architecture):
        """A nested one."""

        norm: Literal["rms"]

    width: int
    inner: Inner = Inner(norm="rms")


@pytest.fixture
def weight_file(tmp_path):
    def write(tensors=None, **metadata: str) -> WeightFile:
        path = tmp_path / "weights.safetensors"
        save_file(tensors or {"a": torch.zeros(1)}, path, metadata)
        return WeightFile(path)

    return write


def test_names_shapes_and_dtypes_come_from_the_header(weight_file):
    file = weight_file({"b.w": torch.zeros(2, 3), "a.w": torch.ones(4, dtype=torch.bfloat16)})
    assert file.names == ("a.w", "b.w")
    assert (file.shape("b.w"), file.dtype("b.w"), file.dtype("a.w")) == ((2, 3), "F32", "BF16")
    assert list(file.under("b.")) == [("w", "b.w")]
    assert torch.equal(file.tensor("a.w"), torch.ones(4, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        ("2.3.0", (2, 3, 0)),
        ("2.4-rc2", (2, 4)),
        ("2.5", (2, 5)),
        ("2-3-1", (2, 3, 1)),
        ("2.0.0-dev", (2, 0, 0)),
        ("dev", ()),
        ("v2.3", ()),
        ("2.x.3", (2,)),
        ("", ()),
    ],
)
def test_a_version_is_its_leading_integers(weight_file, stated, version):
    assert weight_file(model_version=stated).model_version == version


def test_a_file_without_metadata_has_no_version_and_no_config(weight_file):
    file = weight_file()
    assert (file.model_version, file.config, file.metadata) == ((), {}, {})


@pytest.mark.parametrize("content", [b"", b"not a weight file at all", b"\x10\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a safetensors file"):
        WeightFile(path)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tiny_folder, tmp_path, kept):
    data = (tiny_folder / "ltx-2-tiny.safetensors").read_bytes()
    path = tmp_path / "half.safetensors"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match=r"half\.safetensors is not a safetensors file"):
        WeightFile(path)


def test_missing_files_and_folders_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors does not exist"):
        WeightFile(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="is not a file"):
        WeightFile(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"), [("{", "'config' is not JSON"), ("[]", "'config' is not a JSON object")]
)
def test_a_damaged_config_is_refused(weight_file, config, message):
    with pytest.raises(CheckpointError, match=message):
        weight_file(config=config).section("net", Net)


@pytest.mark.parametrize("config", ["{}", '{"net": null}', '{"other": {"width": 1}}'])
def test_a_missing_section_is_named(weight_file, config):
    with pytest.raises(CheckpointError, match="no config section 'net'"):
        weight_file(config=config).section("net", Net)


def test_sections_are_validated_and_other_keys_dropped(weight_file):
    config = json.dumps({"net": {"width": 3, "later": 1}})
    assert weight_file(config=config).section("net", Net) == Net(width=3)


def test_a_flat_config_is_a_section_without_name(weight_file):
    assert weight_file(config='{"width": 3}').section(None, Net).width == 3


def test_an_unsupported_value_names_section_key_and_value(weight_file):
    config = json.dumps({"net": {"width": 3, "inner": {"norm": "layer"}}})
    expected = r"config\.net is not supported: field 'inner\.norm': should be 'rms', got 'layer'"
    with pytest.raises(CheckpointError, match=expected):
        weight_file(config=config).section("net", Net)


def test_all_unsupported_values_are_named(weight_file):
    config = json.dumps({"transformer": {"activation_fn": "relu", "qk_norm": "none"}})
    with pytest.raises(CheckpointError) as caught:
        weight_file(config=config).section("transformer", TransformerConfig)
    assert "'activation_fn': should be 'gelu-approximate', got 'relu'" in str(caught.value)
    assert "'qk_norm': should be 'rms_norm', got 'none'" in str(caught.value)
    assert "'dropout': required" in str(caught.value)


@pytest.fixture
def sharded(tmp_path):
    """An index and its two shards; the first one has metadata."""
    save_file({"a": torch.ones(2)}, tmp_path / "m-1.safetensors", {"model_version": "2.3.0"})
    save_file({"b": torch.zeros(3)}, tmp_path / "m-2.safetensors", {"model_version": "9"})

    def index(**weight_map: str) -> WeightFile:
        path = tmp_path / "m.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": weight_map}))
        return WeightFile(path)

    return index


def test_shards_read_as_one_file(sharded):
    file = sharded(a="m-1.safetensors", b="m-2.safetensors")
    assert file.names == ("a", "b")
    assert (file.tensor("a").sum().item(), file.shape("b")) == (2, (3,))
    assert file.model_version == (2, 3, 0)
    assert file.num_bytes == sum(part.stat().st_size for part in file.parts)


@pytest.mark.parametrize("shard", ["m-3.safetensors", "../m-1.safetensors", "/etc/passwd", ".."])
def test_shards_that_are_not_there_or_elsewhere_are_refused(sharded, shard):
    with pytest.raises(CheckpointError, match=r"does not exist|outside its folder"):
        sharded(a="m-1.safetensors", b=shard)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_shards_is_refused(tmp_path, text):
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"is not an index of shards|names no shard"):
        WeightFile(path)


def test_joined_files_keep_the_first_one_s_metadata_and_tensors(tmp_path):
    for name, value in (("one", 1.0), ("two", 2.0)):
        tensors = {"both": torch.tensor(value), name: torch.tensor(value)}
        save_file(tensors, tmp_path / f"{name}.safetensors", {"model_version": str(value)})
    one, two = (WeightFile(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    joined = one.joined(two, one)
    assert joined.names == ("both", "one", "two")
    assert (joined.tensor("both").item(), joined.tensor("two").item()) == (1, 2)
    assert joined.model_version == (1, 0)
    assert len(joined.parts) == 2
