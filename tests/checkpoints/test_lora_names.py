"""LoRA files of different origins: the same adapter under every spelling."""

import json

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.keys import TRANSFORMER, component_names
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.lora_names import spellings
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError
from tests.fusing import fuse

SHAPES = {
    "transformer_blocks.0.attn1.to_q.weight": (6, 4),
    "transformer_blocks.0.attn1.to_out.0.weight": (4, 6),
    "audio_adaln_single.emb.timestep_embedder.linear_1.weight": (3, 5),
    "patchify_proj.weight": (6, 4),
}
RENAMED = {"audio_adaln_single": "audio_time_embed", "patchify_proj": "proj_in"}
RANK = 2


def factors(name):
    rows, columns = SHAPES[name]
    return torch.full((RANK, columns), 0.5), torch.full((rows, RANK), 0.25)


def dotted(prefix, down="lora_A.weight", up="lora_B.weight"):
    return lambda module: (f"{prefix}{module}.{down}", f"{prefix}{module}.{up}")


def joined(module):
    path = module.replace(".", "_")
    return f"lora_unet_{path}.lora_down.weight", f"lora_unet_{path}.lora_up.weight"


def renamed(module):
    return ".".join(RENAMED.get(part, part) for part in module.split("."))


LAYOUTS = {
    "official": dotted("diffusion_model."),
    "bare": dotted(""),
    "transformer": dotted("transformer."),
    "checkpoint": dotted("model.diffusion_model."),
    "peft": dotted("base_model.model.", "lora_A.default.weight", "lora_B.default.weight"),
    "peft-of-official": dotted("base_model.model.diffusion_model."),
    "kohya": joined,
    "kohya-of-diffusers": lambda module: joined(renamed(module)),
    "comfy": dotted("diffusion_model.", "lora_down.weight", "lora_up.weight"),
    "diffusers": lambda module: dotted("transformer.")(renamed(module)),
    "old-diffusers": dotted("transformer.", "lora.down.weight", "lora.up.weight"),
}


@pytest.fixture
def write(tmp_path):
    """Writes an adapter in some layout; further tensors and metadata as asked."""

    def write_file(layout=LAYOUTS["official"], extra=None, **metadata: str) -> Adapter:
        tensors = dict(extra or {})
        for weight in SHAPES:
            names = layout(weight.removesuffix(".weight"))
            tensors |= dict(zip(names, factors(weight), strict=True))
        path = tmp_path / "style.safetensors"
        save_file(tensors, path, metadata or None)
        return Adapter(WeightFile(path), 1.0)

    return write_file


def scale(adapter, name="patchify_proj.weight"):
    return adapter.targets(SHAPES)[name].scale


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_changes_the_same_weights_in_the_same_way(write, layout):
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    fused = fuse(zeros, [write(layout)])
    for name, weight in fused.items():
        assert torch.equal(weight, torch.full(SHAPES[name], 0.25))


def test_paths_joined_by_underscores_mean_one_weight_of_the_real_network_each(tiny_model):
    files = ModelFiles(tiny_model)
    names = component_names(files.transformer_file, TRANSFORMER)
    found = spellings(names)
    assert len(found) > 100
    assert all(len(meant) == 1 for meant in found.values())


def test_a_joined_path_that_may_mean_two_weights_is_refused(write):
    shapes = SHAPES | {"patchify.proj.weight": (6, 4)}
    message = r"style\.safetensors: lora_unet_patchify_proj may mean any of \['patchify\.proj"
    with pytest.raises(CheckpointError, match=message):
        write(joined).targets(shapes)


def test_a_weight_that_is_meant_twice_is_refused(write):
    both = dict(zip(joined("patchify_proj"), factors("patchify_proj.weight"), strict=True))
    with pytest.raises(
        CheckpointError, match=r"lora_unet_patchify_proj and patchify_proj are both"
    ):
        write(extra=both).targets(SHAPES)
    bare = dict(zip(dotted("")("patchify_proj"), factors("patchify_proj.weight"), strict=True))
    with pytest.raises(CheckpointError, match="are the same twice"):
        write(extra=bare).targets(SHAPES)


def test_alpha_of_a_module_is_divided_by_its_rank(write):
    adapter = write(extra={"diffusion_model.patchify_proj.alpha": torch.tensor(1.0)})
    assert scale(adapter) == 0.5
    assert scale(adapter, "transformer_blocks.0.attn1.to_q.weight") == 1
    zeros = {name: torch.zeros(size) for name, size in SHAPES.items()}
    fused = fuse(zeros, [Adapter(adapter.file, 3.0)])["patchify_proj.weight"]
    assert torch.equal(fused, torch.full((6, 4), 3 * 0.5 * 0.25))


def test_alpha_in_the_metadata_is_divided_by_the_rank_beside_it(write):
    assert scale(write(lora_alpha="450", lora_rank="450")) == 1
    assert scale(write(lora_alpha="225", lora_rank="450")) == 0.5
    assert scale(write(lora_alpha="4")) == 4 / RANK


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_alpha_as_diffusers_writes_it(write, prefix):
    def stated(**config) -> str:
        return json.dumps({f"{prefix}{key}": value for key, value in config.items()})

    config = {"r": 16, "lora_alpha": 4, "alpha_pattern": {"attn1.to_q": 8}}
    adapter = write(lora_adapter_metadata=stated(**config))
    assert scale(adapter) == 4 / RANK
    assert scale(adapter, "transformer_blocks.0.attn1.to_q.weight") == 8 / RANK
    adapter = write(lora_adapter_metadata=stated(**config, use_rslora=True))
    assert scale(adapter) == 4 / RANK**0.5


@pytest.mark.parametrize(
    ("extra", "metadata"),
    [
        ({"diffusion_model.patchify_proj.alpha": torch.ones(2)}, {}),
        ({}, {"lora_alpha": "high"}),
        ({}, {"lora_alpha": "1", "lora_rank": "0"}),
        ({}, {"lora_adapter_metadata": "no JSON"}),
        ({}, {"lora_adapter_metadata": "[1]"}),
        ({}, {"lora_adapter_metadata": '{"lora_alpha": null}'}),
    ],
)
def test_an_alpha_that_is_no_number_is_refused(write, extra, metadata):
    with pytest.raises(CheckpointError, match=r"style\.safetensors: alpha of .* cannot be read"):
        write(extra=extra, **metadata).targets(SHAPES)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_unet_patchify_proj.dora_scale", "DoRA"),
        ("patchify_proj.lora_magnitude_vector", "DoRA"),
        ("lora_unet_patchify_proj.lora_mid.weight", "a Tucker decomposition"),
        ("lora_unet_patchify_proj.hada_w1_a", "LoHa"),
        ("lora_unet_patchify_proj.lokr_w1", "LoKr"),
    ],
)
def test_adapters_of_other_kinds_are_refused_by_name(write, name, kind):
    with pytest.raises(CheckpointError, match=rf"style\.safetensors is {kind}, not a plain LoRA"):
        write(extra={name: torch.ones(1)}).targets(SHAPES)


def test_convolutions_are_refused(write):
    path = "diffusion_model.patchify_proj"
    convolution = {
        f"{path}.lora_A.weight": torch.zeros(RANK, 4, 3, 3),
        f"{path}.lora_B.weight": torch.zeros(6, RANK, 1, 1),
    }
    adapter = write(dotted("text."), convolution)
    with pytest.raises(CheckpointError, match=r"style\.safetensors: patchify_proj is of a convol"):
        adapter.targets(SHAPES)


def test_tensors_that_are_no_part_of_an_adapter_are_said(write, caplog):
    write(extra={"embeddings": torch.ones(1)}).targets(SHAPES)
    assert "ignored, no part of a LoRA: ['embeddings']" in caplog.text
