"""A model's files against its networks, from headers alone."""

import json
import shutil

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import check_networks, transformer, upsampler
from rayreel.checkpoints.reader import WeightFile
from rayreel.config.conditions import AdapterSpec
from rayreel.errors import CheckpointError

TABLE = "model.diffusion_model.scale_shift_table"


def check(model, **changed) -> None:
    check_networks(ModelFiles(model.model_copy(update=changed)))


@pytest.fixture
def gemma_copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model.gemma, tmp_path / "gemma")


def test_a_whole_set_fits_and_no_tensor_is_read(tiny_model, monkeypatch):
    monkeypatch.setattr(WeightFile, "tensor", None)
    check(tiny_model)


def test_a_model_needs_neither_upsampler_nor_adapter(tiny_model):
    check(tiny_model, upsampler=None, distilled_lora=None)


def test_missing_unexpected_and_misshapen_weights_are_named_together(tiny_model, rewritten):
    def damage(tensors):
        del tensors["model.diffusion_model.proj_out.bias"]
        tensors["model.diffusion_model.extra"] = torch.zeros(1)
        tensors[TABLE] = torch.zeros(3, 3)

    checkpoint = rewritten(tiny_model.checkpoint, damage)
    with pytest.raises(CheckpointError) as caught:
        check(tiny_model, checkpoint=str(checkpoint))
    title, missing, unexpected, misshapen = str(caught.value).splitlines()
    assert title == f"{checkpoint} does not fit the network Transformer:"
    assert missing == "  missing (1): proj_out.bias"
    assert unexpected == "  unexpected (1): extra"
    assert misshapen.startswith("  wrong shape (1): scale_shift_table: expected (2, 128), got (3,")


@pytest.mark.parametrize(
    ("prefix", "network"),
    [
        ("text_embedding_projection.", "EmbeddingsProcessor"),
        ("vae.encoder.", "VideoEncoder"),
        ("vae.decoder.", "VideoDecoder"),
        ("vae.per_channel_statistics.", "VideoEncoder"),
        ("audio_vae.decoder.", "AudioDecoder"),
        ("vocoder.", "Vocoder"),
    ],
)
def test_every_network_of_a_checkpoint_is_checked(tiny_model, rewritten, prefix, network):
    def damage(tensors):
        del tensors[next(name for name in tensors if name.startswith(prefix))]

    with pytest.raises(CheckpointError, match=rf"does not fit the network {network}:\n  missing"):
        check(tiny_model, checkpoint=str(rewritten(tiny_model.checkpoint, damage)))


def test_the_upsampler_is_checked(tiny_model, rewritten):
    damaged = rewritten(tiny_model.upsampler, lambda tensors: tensors.pop("final_conv.bias"))
    with pytest.raises(CheckpointError, match=r"LatentUpsampler:\n  missing \(1\): final_conv"):
        check(tiny_model, upsampler=str(damaged))


def test_a_pipeline_that_needs_an_upsampler_says_so(tiny_model):
    with pytest.raises(CheckpointError, match="names no upsampler"):
        upsampler(ModelFiles(tiny_model.model_copy(update={"upsampler": None})))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("transformer", "activation_fn", "relu", "'activation_fn': should be 'gelu-approximate'"),
        ("transformer", "num_attention_heads", 8, "num_attention_heads=8 and audio_num_attention"),
        ("vae", "norm_layer", "layer_norm", "'norm_layer': should be"),
        ("vae", "encoder_blocks", [["fold", 1]], "unknown block 'fold'"),
        ("vae", "encoder_blocks", [["res_x", "many"]], r"'encoder_blocks\.0'"),
        ("vae", "decoder_blocks", 3, "'decoder_blocks': should be a list, got 3"),
        ("vocoder", "resblock", "2", "'generator.resblock'"),
    ],
)
def test_an_unsupported_architecture_names_the_key(
    tiny_model, rewritten, section, key, value, message
):
    config = ModelFiles(tiny_model).transformer_file.config
    changed = {**config, section: {**config[section], key: value}}
    checkpoint = rewritten(tiny_model.checkpoint, config=json.dumps(changed))
    with pytest.raises(CheckpointError, match=message):
        check(tiny_model, checkpoint=str(checkpoint))


def test_a_file_of_another_kind_is_refused(tiny_model):
    with pytest.raises(CheckpointError, match="no config section 'transformer'"):
        check(tiny_model, checkpoint=tiny_model.distilled_lora.path)
    with pytest.raises(CheckpointError, match="does not fit the network LatentUpsampler"):
        check(tiny_model, upsampler=tiny_model.checkpoint)


@pytest.mark.parametrize("name", ["checkpoint", "upsampler", "gemma", "distilled_lora"])
def test_a_missing_file_is_named(tiny_model, tmp_path, name):
    path = str(tmp_path / "nowhere")
    missing = AdapterSpec(path=path) if name == "distilled_lora" else path
    with pytest.raises(CheckpointError, match=path):
        check(tiny_model, **{name: missing})


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_gemma_folder_is_refused(tiny_model, gemma_copy, name):
    (gemma_copy / name).unlink()
    with pytest.raises(CheckpointError, match=str(gemma_copy)):
        check(tiny_model, gemma=str(gemma_copy))


def test_a_gemma_of_another_size_is_refused(tiny_model, gemma_copy):
    config = json.loads((gemma_copy / "config.json").read_text("utf-8"))
    config["text_config"]["num_hidden_layers"] = 5
    (gemma_copy / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match=r"network Gemma:\n  missing"):
        check(tiny_model, gemma=str(gemma_copy))


def test_networks_have_the_file_s_weights(tiny_model):
    files = ModelFiles(tiny_model)
    weights = transformer(files).weights(torch.device("cpu"), torch.float32)
    assert torch.equal(weights["scale_shift_table"], files.transformer_file.tensor(TABLE))
