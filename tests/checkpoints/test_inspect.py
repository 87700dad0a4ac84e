"""What is said about weight files."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints.inspect import describe
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError


def lines(path) -> dict[str, str]:
    """The report as a mapping from label to text."""
    _, *rest = describe(path).splitlines()
    pairs = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in rest]
    return dict(pairs)


def test_a_checkpoint_tells_version_architecture_and_components(tiny_folder):
    said = lines(tiny_folder / "ltx-2-tiny.safetensors")
    assert said["kind"] == "LTX-2 checkpoint"
    assert said["model version"] == "2.0.0"
    assert said["text"] == "features v1, connectors of 2 and 2 layers"
    assert said["video VAE"] == "16 channels, 1/32 in space, 1/8 in time"
    assert said["audio VAE"] == "2 channels x 16 bins, 25 latents per second"
    components = ["video encoder", "video decoder", "audio encoder", "audio decoder", "vocoder"]
    assert all("parameters in" in said[component] for component in components)


def test_the_transformer_is_told_twice_as_architecture_and_as_weights(tiny_folder):
    path = tiny_folder / "ltx-2-tiny.safetensors"
    said = [line.strip() for line in describe(path).splitlines() if "  transformer" in line]
    assert said[0].endswith("4 blocks, video 4 x 32, audio 4 x 16, split rotary embedding")
    assert re.search(r"[\d,]+ parameters in \d+ tensors \(BF16 [\d,]+, F32 [\d,]+\)", said[1])


def test_all_tensors_of_a_checkpoint_are_counted(tiny_folder):
    path = tiny_folder / "ltx-2-tiny.safetensors"
    counts = [int(n) for n in re.findall(r"parameters in (\d+) tensors", describe(path))]
    # Encoders and decoders share two statistics, of video and of audio.
    assert sum(counts) == len(WeightFile(path).names) + 4


def test_an_upsampler_tells_its_factor(tiny_folder):
    said = lines(tiny_folder / "ltx-2-tiny-spatial-upscaler-x2.safetensors")
    assert said["kind"] == "latent upsampler"
    assert said["upsampler"] == "16 channels, 2x in space"
    assert said["model version"] == "not stated"


def test_a_temporal_upsampler_is_told_apart(tmp_path):
    config = {"mid_channels": 8, "spatial_upsample": False, "temporal_upsample": True}
    save_file({"a": torch.zeros(1)}, tmp_path / "a", {"config": json.dumps(config)})
    assert lines(tmp_path / "a")["upsampler"] == "128 channels, 2x in time"


def test_a_lora_tells_its_ranks(tiny_folder):
    said = lines(tiny_folder / "ltx-2-tiny-distilled-lora.safetensors")
    assert (said["kind"], said["ranks"]) == ("LoRA", "4")


def test_a_text_encoder_is_recognised(tiny_folder):
    said = lines(tiny_folder / "gemma-3-tiny" / "model.safetensors")
    assert said["kind"] == "Gemma text encoder"
    assert "parameters in" in said["tensors"]


def test_a_file_of_one_component_tells_that_one(tiny_folder, rewritten):
    source = tiny_folder / "ltx-2-tiny.safetensors"
    vocoder = {"vocoder": WeightFile(source).config["vocoder"], "transformer": None}

    def only_vocoder(tensors):
        for name in [name for name in tensors if not name.startswith("vocoder.")]:
            del tensors[name]

    said = describe(rewritten(source, only_vocoder, config=json.dumps(vocoder)))
    assert "vocoder        24000 Hz" in said
    assert "VAE" not in said
    assert "other tensors" not in said


def test_an_unknown_file_is_still_measured(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, path)
    said = lines(path)
    assert said["kind"].startswith("unknown")
    assert said["tensors"] == "10 parameters in 2 tensors (F32 6, I64 4)"
    assert list(said) == ["kind", "model version", "size", "tensors"]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello", "utf-8")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        describe(tmp_path / "a.txt")
