"""Adapters of a model: which weights they change, and files that are none."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.keys import TRANSFORMER, component_tensors
from rayreel.checkpoints.networks import check_networks
from rayreel.config.conditions import AdapterSpec
from rayreel.errors import CheckpointError
from tests.fusing import fuse

TARGET = "transformer_blocks.0.attn1.to_q"


@pytest.fixture
def adapter_file(tmp_path):
    def write(module: str = TARGET, *, down=(2, 128), up=(128, 2), halves="AB") -> str:
        tensors = {
            f"{module}.lora_{half}.weight": torch.full(shape, 0.5)
            for half, shape in zip("AB", (down, up), strict=True)
            if half in halves
        }
        path = tmp_path / "adapter.safetensors"
        save_file(tensors, path)
        return str(path)

    return write


def weights(files: ModelFiles):
    return component_tensors(files.transformer_file, TRANSFORMER)


def with_adapter(model, path: str, strength: float = 1.0) -> ModelFiles:
    loras = (AdapterSpec(path=path, strength=strength),)
    return ModelFiles(model.model_copy(update={"loras": loras}))


@pytest.mark.parametrize("prefix", ["diffusion_model.", ""])
def test_keys_with_and_without_prefix_change_the_same_weight(tiny_model, adapter_file, prefix):
    files = with_adapter(tiny_model, adapter_file(f"{prefix}{TARGET}"))
    check_networks(files)
    plain, fused = weights(files), fuse(weights(files), files.adapters(distilled=False))
    changed = fused[f"{TARGET}.weight"].float() - plain[f"{TARGET}.weight"].float()
    torch.testing.assert_close(changed, torch.full_like(changed, 0.5), atol=4e-3, rtol=0)


def test_the_distilled_adapter_comes_last_and_only_where_asked(tiny_model, adapter_file):
    files = with_adapter(tiny_model, adapter_file())
    (first,) = files.adapters(distilled=False)
    assert files.adapters(distilled=True) == (first, files.distilled_lora)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"module": "diffusion_model.blocks.0.to_q"}, "changes none of this model's weights"),
        ({"halves": "A"}, "lora_A or lora_B is missing"),
        ({"down": (2, 127)}, "does not fit"),
        ({"up": (127, 2)}, "does not fit"),
        ({"up": (128, 3)}, "does not fit"),
        ({"down": (2, 128, 1)}, "does not fit"),
    ],
)
def test_a_wrong_adapter_is_found_from_its_header(tiny_model, adapter_file, wrong, message):
    files = with_adapter(tiny_model, adapter_file(**wrong))
    with pytest.raises(CheckpointError, match=rf"adapter\.safetensors.* {message}"):
        check_networks(files)


def test_a_wrong_adapter_is_not_fused(tiny_model, adapter_file):
    files = with_adapter(tiny_model, adapter_file("blocks.0"))
    with pytest.raises(CheckpointError, match="changes none"):
        fuse(weights(files), files.adapters(distilled=False))


def test_a_file_that_is_no_adapter_is_refused(tiny_model):
    files = with_adapter(tiny_model, tiny_model.upsampler)
    with pytest.raises(CheckpointError, match="is not a LoRA"):
        check_networks(files)


def test_an_adapter_of_strength_0_is_not_looked_at(tiny_model):
    check_networks(with_adapter(tiny_model, tiny_model.upsampler, strength=0.0))


def test_keys_that_the_model_does_not_have_are_said(tiny_model, tmp_path, caplog):
    tensors = load_file(tiny_model.distilled_lora.path)
    for half in "AB":
        tensors[f"text_embedding_projection.lora_{half}.weight"] = torch.zeros(1, 1)
    save_file(tensors, tmp_path / "adapter.safetensors")
    check_networks(with_adapter(tiny_model, str(tmp_path / "adapter.safetensors")))
    assert "not in this model: ['text_embedding_projection.weight']" in caplog.text
