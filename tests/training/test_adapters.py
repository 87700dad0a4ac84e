"""Where adapters attach, how they start, and what of them is written and read."""

from collections import Counter
from typing import Any

import pytest
import torch

from rayreel.checkpoints.reader import WeightFile
from rayreel.config.train import LoraSpec
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, SpecError
from rayreel.models.transformer import Transformer
from rayreel.training.adapters import (
    PRESETS,
    adapter_tensors,
    attach,
    load_adapter,
    target_layers,
)
from rayreel.training.weights import save_adapter
from tests.models.tiny import sine_transformer, tiny_config, tiny_streams, video_only
from tests.training.trained import learned

# Layers of each block, by module: as the specification's table of patterns has them.
SELF_AND_TEXT = {"attn1": 4, "attn2": 4}
OF_AUDIO = {"audio_attn1": 4, "audio_attn2": 4}
EXCHANGE = {"audio_to_video_attn": 4, "video_to_audio_attn": 4}
PER_BLOCK = {
    "attention": SELF_AND_TEXT | OF_AUDIO | EXCHANGE,
    "all": SELF_AND_TEXT | OF_AUDIO | EXCHANGE | {"ff": 2, "audio_ff": 2},
    "video": SELF_AND_TEXT | {"ff": 2},
    "audio": OF_AUDIO | {"audio_ff": 2},
    "cross_modal": EXCHANGE,
}


def fresh(generation="2.0", **overrides) -> Transformer:
    return sine_transformer(tiny_config(generation, **overrides))


def adapted(spec: LoraSpec, seed=0, generation="2.0") -> Transformer:
    model = fresh(generation)
    attach(model, spec, seed)
    return model


@torch.no_grad()
def trained(spec: LoraSpec, seed=0) -> Transformer:
    """With an adapter that does something."""
    model = adapted(spec, seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def saved(tmp_path, model, spec, precision="float32") -> WeightFile:
    storage = Storage(tmp_path)
    save_adapter(storage, "a.safetensors", learned(model), spec=spec, precision=precision)
    return WeightFile(tmp_path / "a.safetensors")


@pytest.mark.parametrize("generation", ["2.0", "2.3", "2.5"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_mean_the_same_layers_of_every_block(preset, generation):
    layers = target_layers(fresh(generation), preset)
    modules = Counter(tuple(name.split(".")[:3]) for name in layers)
    expected = {
        ("transformer_blocks", str(block), module): count
        for block in range(2)
        for module, count in PER_BLOCK[preset].items()
    }
    assert modules == expected


def test_the_attention_of_a_block_has_24_layers():
    assert len(target_layers(fresh(), "attention")) == 2 * 24


def test_ends_of_names_are_whole_parts():
    layers = target_layers(fresh(), ("attn1.to_k", "ff.net.2"))
    assert layers == tuple(
        f"transformer_blocks.{block}.{end}"
        for block in (0, 1)
        for end in ("attn1.to_k", "ff.net.2")
    )


def test_peft_attaches_to_the_layers_that_were_found():
    spec = LoraSpec(rank=2, targets=("attn1.to_k", "audio_ff.net.2"))
    names = {name.partition(".lora_")[0] for name in learned(adapted(spec))}
    assert names == set(target_layers(fresh(), spec.targets))


def test_layers_outside_of_the_blocks_can_be_named():
    assert target_layers(fresh(), ("patchify_proj",)) == ("patchify_proj",)


def test_an_unknown_target_is_told_with_the_nearest_ones():
    with pytest.raises(SpecError, match=r"'atn1\.to_q' .* nearest are attn1\.to_q"):
        target_layers(fresh(), ("to_k", "atn1.to_q"))


def test_what_is_no_linear_layer_is_refused():
    with pytest.raises(SpecError, match=r"'attn1\.q_norm' is the end of no linear layer"):
        target_layers(fresh(), ("attn1.q_norm",))


def test_a_preset_of_a_stream_that_is_not_there_is_told_with_those_that_are():
    model = sine_transformer(video_only(tiny_config("2.0")))
    with pytest.raises(SpecError, match=r"audio means no layer .* it has all, video, attention"):
        target_layers(model, "audio")


def test_a_fresh_adapter_changes_nothing():
    streams = tiny_streams(tiny_config("2.0"))
    torch.testing.assert_close(
        adapted(LoraSpec(rank=4, targets="all"))(*streams), fresh()(*streams), rtol=0, atol=0
    )


def test_only_the_factors_learn_and_they_are_float32():
    model = fresh().bfloat16()
    attach(model, LoraSpec(rank=4), 0)
    assert {parameter.dtype for parameter in learned(model).values()} == {torch.float32}
    assert all(".lora_" in name for name in learned(model))
    assert len(learned(model)) == 2 * 2 * 24


def test_factors_start_the_same_whatever_else_is_adapted_or_was_drawn():
    few = learned(adapted(LoraSpec(rank=4, targets=("attn2.to_v", "attn1.to_q")), seed=3))
    torch.rand(5)
    many = learned(adapted(LoraSpec(rank=4, targets="all"), seed=3))
    assert len(few) == 2 * 2 * 2
    assert all(torch.equal(many[name], tensor) for name, tensor in few.items())


def test_factors_depend_on_the_seed_and_the_layer():
    spec = LoraSpec(rank=4, targets=("attn1.to_q", "attn1.to_k"))
    one, other = learned(adapted(spec, seed=1)), learned(adapted(spec, seed=2))
    firsts = [tensor for found in (one, other) for name, tensor in found.items() if "_A." in name]
    assert len({tuple(tensor.flatten().tolist()) for tensor in firsts}) == len(firsts) == 8


def test_factors_a_fill_the_range_of_kaiming():
    model = adapted(LoraSpec(rank=64, targets=("attn1.to_q",)))
    first = next(tensor for name, tensor in learned(model).items() if "_A." in name)
    bound = first.shape[1] ** -0.5
    assert 0.95 * bound < first.abs().max() <= bound


def test_attaching_leaves_the_generator_of_the_process_alone():
    model, before = fresh(), torch.get_rng_state()
    attach(model, LoraSpec(rank=4), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_tensors_are_named_as_comfyui_and_others_read_them():
    spec = LoraSpec(rank=2, targets=("attn1.to_out.0",))
    tensors = adapter_tensors(learned(adapted(spec)), spec)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        f"diffusion_model.transformer_blocks.{block}.attn1.to_out.0.{factor}.weight": shape
        for block in (0, 1)
        for factor, shape in (("lora_A", (2, 16)), ("lora_B", (16, 2)))
    }


@pytest.mark.parametrize("alpha", [None, 1, 12])
def test_alpha_is_in_what_is_written(alpha):
    spec = LoraSpec(rank=4, alpha=alpha, targets=("attn1.to_q",))
    model = trained(spec)
    tensors = adapter_tensors(learned(model), spec)
    layer: Any = model.get_submodule("transformer_blocks.0.attn1.to_q")
    start = "diffusion_model.transformer_blocks.0.attn1.to_q"
    product = tensors[f"{start}.lora_B.weight"] @ tensors[f"{start}.lora_A.weight"]
    torch.testing.assert_close(product, layer.get_delta_weight("default"), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", [None, 2, 8])
def test_a_saved_adapter_is_a_start_for_one_of_another_alpha(alpha, tmp_path):
    spec = LoraSpec(rank=4, alpha=12, targets="video")
    model = trained(spec, seed=1)
    file = saved(tmp_path, model, spec)
    again = adapted(LoraSpec(rank=4, alpha=alpha, targets="video"), seed=2)
    load_adapter(again, file)
    streams = tiny_streams(model.config)
    torch.testing.assert_close(again(*streams), model(*streams), rtol=1e-5, atol=1e-6)


def test_a_start_of_another_rank_is_refused(tmp_path):
    spec = LoraSpec(rank=4)
    file = saved(tmp_path, trained(spec), spec)
    with pytest.raises(SpecError, match=r"is of rank 4, lora\.rank is 8; set lora\.rank: 4"):
        load_adapter(adapted(LoraSpec(rank=8)), file)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [("video", "all", "has nothing for"), ("all", "video", "is also of")],
)
def test_a_start_of_other_layers_is_refused(theirs, ours, message, tmp_path):
    spec = LoraSpec(rank=4, targets=theirs)
    file = saved(tmp_path, trained(spec), spec)
    with pytest.raises(SpecError, match=rf"start: .* {message} transformer_blocks\.0\."):
        load_adapter(adapted(LoraSpec(rank=4, targets=ours)), file)


def test_a_start_for_another_model_is_refused(tmp_path):
    spec = LoraSpec(rank=4)
    file = saved(tmp_path, trained(spec), spec)
    wide = fresh(attention_head_dim=16, cross_attention_dim=32)
    attach(wide, spec, 0)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_adapter(wide, file)


def test_dropout_is_for_training_alone():
    model = trained(LoraSpec(rank=4, dropout=0.5))
    streams = tiny_streams(model.config)
    quiet = [model.eval()(*streams)[0] for _ in range(2)]
    noisy = [model.train()(*streams)[0] for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*noisy)
