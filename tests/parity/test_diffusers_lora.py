"""Saved adapters in diffusers' class: it loads them, and predicts what was trained."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import LTX2LoraLoaderMixin

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import write_tiny
from rayreel.config.train import LoraSpec
from rayreel.data.storage import Storage
from rayreel.runs.bench.oracles import diffusers_transformer, give_weights, transformer_name
from rayreel.training.weights import save_adapter
from tests.parity.test_diffusers_transformer import velocities
from tests.training.trained import CPU, change, learned, noise_streams, trainable

EVERYWHERE = ("to_q", "ff.net.2", "patchify_proj", "adaln_single.linear", "proj_out")


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def files(request, tmp_path_factory):
    return ModelFiles(write_tiny(tmp_path_factory.mktemp("tiny"), request.param))


def theirs(files: ModelFiles) -> Any:
    weights = networks.transformer(files).weights(CPU, torch.float32)
    weights = {name: weight.float() for name, weight in weights.items()}
    return give_weights(diffusers_transformer(files.transformer), weights, transformer_name)


def streams(files: ModelFiles):
    """With a noise level for each token, as theirs wants them."""
    for stream in noise_streams(files.transformer):
        assert stream is not None
        tokens = stream.latent.shape[1]
        yield replace(stream, timesteps=stream.timesteps.expand(-1, tokens, -1))


@pytest.mark.parametrize(
    "spec",
    [
        LoraSpec(rank=4),
        LoraSpec(rank=8, alpha=4, targets="all"),
        LoraSpec(rank=4, alpha=12, targets=EVERYWHERE),
    ],
    ids=["attention", "all", "everywhere"],
)
@torch.no_grad()
def test_a_saved_adapter_predicts_the_same_in_diffusers(spec, files, tmp_path):
    ours = trainable(files, lora=spec).model.eval()
    change(ours)
    name = "adapter.safetensors"
    save_adapter(Storage(tmp_path), name, learned(ours), spec=spec, precision="float32")

    transformer = theirs(files)
    base = velocities(transformer, *streams(files))
    state = LTX2LoraLoaderMixin.lora_state_dict(str(tmp_path / name))
    LTX2LoraLoaderMixin.load_lora_into_transformer(state, transformer)

    expected = ours(*streams(files))
    found = velocities(transformer, *streams(files))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert all((b - e).abs().max() > 0.05 for b, e in zip(base, expected, strict=True))
