"""Weight files of parts become a checkpoint that the official loader reads."""

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.cli import app
from rayreel.config.presets import TINY_CONFIG
from rayreel.models.transformer import Transformer
from rayreel.training.pretraining.drawn import draw_transformer


@pytest.fixture
def parts(tmp_path):
    """The tiny model without its transformer, in two files, and its architecture."""
    tensors = load_file(str(locate_model("tiny").checkpoint))
    vae = {key: tensor for key, tensor in tensors.items() if key.startswith("vae.")}
    rest = {
        key: tensor
        for key, tensor in tensors.items()
        if key not in vae and (".diffusion_model." not in key or "connector" in key)
    }
    save_file(vae, tmp_path / "vae.safetensors")
    save_file(rest, tmp_path / "rest.safetensors")
    (tmp_path / "architecture.yaml").write_text(yaml.safe_dump(TINY_CONFIG))
    return tmp_path


def assemble(folder, *names):
    command = ["assemble", str(folder / "architecture.yaml"), *(str(folder / n) for n in names)]
    return CliRunner().invoke(app, [*command, "-o", str(folder / "out" / "all.safetensors")])


def test_a_checkpoint_has_all_parts_and_a_transformer(parts):
    result = assemble(parts, "vae.safetensors", "rest.safetensors")
    assert result.exit_code == 0, result.output
    spec = locate_model("tiny").model_copy(
        update={"checkpoint": str(parts / "out" / "all.safetensors"), "distilled_lora": None}
    )
    networks.check_networks(ModelFiles(spec))


def test_files_with_a_tensor_in_common_are_refused(parts):
    result = assemble(parts, "vae.safetensors", "vae.safetensors")
    assert result.exit_code == 2
    assert "another file has vae." in result.stderr


def test_a_transformer_that_has_learned_nothing_says_no_velocity():
    config = ModelFiles(locate_model("tiny")).transformer
    network = draw_transformer(config, 1)
    assert isinstance(network, Transformer)
    again, other = (draw_transformer(config, seed).patchify_proj.weight for seed in (1, 2))
    assert torch.equal(network.patchify_proj.weight, again)
    assert not torch.equal(again, other)
    assert not network.proj_out.weight.any()
    assert not network.audio_proj_out.weight.any()
