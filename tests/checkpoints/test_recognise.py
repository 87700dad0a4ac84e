"""Folders of weight files, told by the files' headers."""

import shutil
from pathlib import Path

import pytest

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import check_networks
from rayreel.checkpoints.recognise import find_model, model_in
from rayreel.errors import CheckpointError
from tests import layouts

PLAIN = {name: layouts.LAYOUTS[name] for name in layouts.LAYOUTS if "fp8" not in name}


@pytest.mark.parametrize("name", PLAIN)
def test_a_folder_is_one_model_in_every_layout(tmp_path, name):
    written = PLAIN[name](tmp_path)
    found = model_in(tmp_path)
    check_networks(ModelFiles(found))
    assert ModelFiles(found).transformer_file.names == ModelFiles(written).transformer_file.names
    assert (found.gemma, found.upsampler) == (written.gemma, written.upsampler)
    assert found.distilled_lora == written.distilled_lora


def test_names_of_files_play_no_part(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "set")
    for number, path in enumerate(sorted((tmp_path / "set").glob("*upscaler*"))):
        path.rename(path.with_name(f"{number}.safetensors"))
    (tmp_path / "set" / "ltx-2-tiny.safetensors").rename(tmp_path / "set" / "z.safetensors")
    files = ModelFiles(model_in(tmp_path / "set"))
    assert files.transformer_file.path.name == "z.safetensors"
    assert files.upsampler.spatial_upsample


def test_two_files_of_a_kind_are_not_chosen_from(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "set")
    upsampler = tmp_path / "set" / "ltx-2-tiny-spatial-upscaler-x2.safetensors"
    shutil.copy(upsampler, upsampler.with_name("other.safetensors"))
    with pytest.raises(CheckpointError, match="2 files hold a spatial x2 upsampler, name one"):
        model_in(tmp_path / "set")


def test_every_fault_of_a_folder_is_named(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "gemma-3-tiny")
    (tmp_path / "set" / "half.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError) as caught:
        model_in(tmp_path / "set")
    damaged, missing = str(caught.value).splitlines()
    assert "half.safetensors is not a safetensors file" in damaged
    assert "no text encoder" in missing


def test_an_empty_folder_says_what_is_missing(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no transformer in this folder\n.*no text encoder"):
        model_in(tmp_path)


def test_what_is_left_out_is_said(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "set")
    lora = tmp_path / "set" / "ltx-2-tiny-distilled-lora.safetensors"
    lora.rename(lora.with_name("style.safetensors"))
    found = find_model(tmp_path / "set")
    assert found.notes == [
        f"{lora.with_name('style.safetensors')}: left out, name this LoRA in a model spec"
    ]
    assert "distilled_lora" not in found.fields
