"""The networks of a training run: which base they have, what learns, and from where."""

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Fusion
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, SpecError
from rayreel.models.quantized import Fp8CastLinear, Fp8ScaledLinear
from rayreel.training.model import check_trainable
from rayreel.training.weights import save_adapter, save_checkpoint
from tests.layouts import LAYOUTS, video_only
from tests.training.trained import (
    CPU,
    learned,
    loss_of,
    noise_streams,
    spec_of,
    train,
    trainable,
)

BFLOAT16 = torch.bfloat16


def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


def dtypes(model, *, learning: bool) -> set[torch.dtype]:
    # Modulation tables are cast where they are used.
    return {
        parameter.dtype
        for name, parameter in model.named_parameters()
        if parameter.requires_grad == learning and "scale_shift_table" not in name
    }


def check_gradients(model, dtype=torch.float32) -> None:
    """All that learns has finite gradients, of which those of B are some."""
    loss_of(model, dtype).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert all(g.any() for n, g in gradients.items() if g is not None and "lora_B" in n)


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_the_base_of_an_adapter_has_the_dtype_of_the_run(dtype):
    found = trainable(dtype=dtype)
    assert dtypes(found.model, learning=False) == {dtype}
    assert dtypes(found.model, learning=True) == {torch.float32}
    assert {parameter.dtype for parameter in found.connectors.parameters()} == {dtype}
    check_gradients(found.model, dtype)


def test_all_weights_of_a_model_learn_in_float32():
    found = trainable(mode="full", dtype=BFLOAT16)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    assert set(found.names) == set(networks.transformer(files()).names)
    check_gradients(found.model)


def test_the_connectors_are_frozen_and_the_model_is_in_training_mode():
    found = trainable()
    assert not any(parameter.requires_grad for parameter in found.connectors.parameters())
    assert found.model.training
    assert not found.connectors.training


def test_names_are_those_of_what_learns():
    found = trainable(lora={"rank": 4, "targets": ["attn1.to_q"]})
    blocks = found.model.config.num_layers
    assert found.names == tuple(learned(found.model))
    assert len(found.names) == 2 * blocks


def test_training_all_weights_leaves_the_opened_file_as_it_is():
    opened = files()
    network = networks.transformer(opened)
    before = {name: network.file.tensor(old).clone() for name, old in network.names.items()}
    model = trainable(opened, mode="full").model
    train(model)
    assert all(torch.equal(network.file.tensor(old), before[n]) for n, old in network.names.items())
    assert not torch.equal(model.patchify_proj.weight, before["patchify_proj.weight"].float())


def test_adapters_of_the_model_are_in_the_base():
    spec = locate_model("tiny")
    assert spec.distilled_lora is not None
    lora = AdapterSpec(path=spec.distilled_lora.path, strength=0.5)
    opened = ModelFiles(spec.model_copy(update={"loras": (lora,)}))
    network = networks.transformer(opened)
    fused = network.weights(CPU, torch.float32, fusion=Fusion(network.shapes, opened.loras))
    layer, name = "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn1.to_q.weight"
    weight = trainable(opened).model.get_parameter(f"{layer}.base_layer.weight")
    assert torch.equal(weight, fused[name])
    assert not torch.equal(weight, network.file.tensor(network.names[name]).float())


def test_a_base_cast_to_float8_trains_an_adapter():
    model = trainable(dtype=BFLOAT16, acceleration={"quantization": "fp8"}).model
    cast = [module for module in model.modules() if isinstance(module, Fp8CastLinear)]
    assert {layer.weight.dtype for layer in cast} == {torch.float8_e4m3fn}
    assert len(cast) == model.config.num_layers * 28
    assert dtypes(model, learning=True) == {torch.float32}
    check_gradients(model, BFLOAT16)


def test_a_base_in_int8_trains_an_adapter():
    model = trainable(dtype=BFLOAT16, acceleration={"quantization": "int8"}).model
    assert dtypes(model, learning=True) == {torch.float32}
    check_gradients(model, BFLOAT16)


@pytest.mark.parametrize("layout", ["generation_2_5", "fp8_cast", "fp8_scaled", "video_only"])
def test_networks_of_all_kinds_train_an_adapter_and_as_a_whole(layout, tmp_path):
    opened = ModelFiles((LAYOUTS | {"video_only": video_only})[layout](tmp_path))
    for mode in ("lora", "full"):
        check_trainable(opened, spec_of(mode=mode), CPU)
        check_gradients(trainable(opened, mode=mode).model)


def test_gradients_through_float8_inputs_are_not_rounded_to_nothing(tmp_path):
    model = trainable(ModelFiles(LAYOUTS["fp8_scaled"](tmp_path))).model
    scaled = [module for module in model.modules() if isinstance(module, Fp8ScaledLinear)]
    assert scaled
    (1e-6 * loss_of(model)).backward()
    gradients = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
    assert all(gradient is not None and gradient.any() for gradient in gradients)


def test_an_adapter_goes_on_from_a_file(tmp_path):
    spec = spec_of(lora={"rank": 4, "alpha": 8})
    first = trainable(lora={"rank": 4, "alpha": 8}).model
    train(first)
    save_adapter(
        Storage(tmp_path), "a.safetensors", learned(first), spec=spec.lora, precision="float32"
    )
    again = trainable(lora={"rank": 4}, start=str(tmp_path / "a.safetensors"), seed=5).model
    streams = noise_streams(first.config)
    torch.testing.assert_close(again(*streams), first(*streams), rtol=1e-5, atol=1e-5)


def test_a_model_goes_on_from_a_checkpoint(tmp_path):
    opened = files()
    first = trainable(opened, mode="full").model
    train(first)
    save_checkpoint(Storage(tmp_path), "c.safetensors", opened, learned(first), "float32")
    again = trainable(opened, mode="full", start=f"file://{tmp_path}/c.safetensors").model
    assert all(torch.equal(again.get_parameter(n), p) for n, p in first.named_parameters())


def test_a_start_that_is_no_adapter_or_is_not_there_is_refused(tmp_path):
    checkpoint = locate_model("tiny").checkpoint
    with pytest.raises(CheckpointError, match="is not a LoRA"):
        trainable(start=checkpoint)
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors does not exist"):
        trainable(start=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(CheckpointError, match=r"start: cannot copy file://.*nothing"):
        trainable(start=f"file://{tmp_path}/nothing.safetensors")


def test_targets_are_checked_from_headers_alone(monkeypatch):
    opened = files()
    monkeypatch.setattr(WeightFile, "tensor", lambda *_: pytest.fail("reads a tensor"))
    check_trainable(opened, spec_of(), CPU)
    with pytest.raises(SpecError, match=r"lora\.targets: 'to_x'"):
        check_trainable(opened, spec_of(lora={"targets": ["to_x"]}), CPU)


def test_adapters_of_the_model_are_checked_too(tmp_path):
    start = "diffusion_model.transformer_blocks.0.attn1.to_q.lora_"
    path = tmp_path / "wide.safetensors"
    save_file({f"{start}A.weight": torch.ones(2, 9), f"{start}B.weight": torch.ones(9, 2)}, path)
    loras = (AdapterSpec(path=str(path)),)
    opened = ModelFiles(locate_model("tiny").model_copy(update={"loras": loras}))
    with pytest.raises(CheckpointError, match="does not fit"):
        check_trainable(opened, spec_of(), CPU)
