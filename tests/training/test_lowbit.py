"""What needs torchao: what it computes, and that it is missed in time."""

import importlib.util
import logging
from typing import Any

import pytest
import torch
from torch import nn

from rayreel.errors import SpecError
from rayreel.models.transformer import Transformer
from rayreel.training import lowbit
from rayreel.training.lowbit import adamw8bit, check_lowbit, quantize_int8
from tests.models.tiny import sine_transformer, tiny_config, tiny_streams
from tests.training.trained import CPU, spec_of


def eight_bits(params):
    return adamw8bit(params, learning_rate=1e-2, betas=(0.9, 0.999), weight_decay=0.01)


def in_int8() -> Transformer:
    model = sine_transformer(tiny_config("2.0"))
    quantize_int8(model, CPU)
    return model


def without(monkeypatch, name):
    found = importlib.util.find_spec
    monkeypatch.setattr(lowbit, "find_spec", lambda n: None if n == name else found(n))


def test_linear_layers_of_the_blocks_are_in_int8_and_others_are_not():
    model, exact = in_int8(), sine_transformer(tiny_config("2.0"))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert (type(module.weight) is nn.Parameter) == ("transformer_blocks" not in name)
    weight = model.get_parameter("transformer_blocks.1.ff.net.2.weight")
    expected = exact.get_parameter("transformer_blocks.1.ff.net.2.weight")
    assert (weight.dequantize() - expected).abs().max() <= expected.abs().max() / 254 + 1e-6


def test_velocities_are_close_to_exact_ones():
    streams = tiny_streams(tiny_config("2.0"))
    exact = sine_transformer(tiny_config("2.0"))(*streams)
    for ours, theirs in zip(in_int8()(*streams), exact, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 0.03


def test_gradients_are_those_of_the_weights_that_are_stored():
    layer: Any = in_int8().get_submodule("transformer_blocks.0.attn1.to_q")
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer(x).sum().backward()
    expected = layer.weight.dequantize().sum(dim=0).expand(3, -1)
    torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-6)


def descended(optimizer_of, shape=(64, 64), steps=30):
    """What is left of a distance after some steps, and the optimiser."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, generator=generator))
    optimizer = optimizer_of([weight])
    for _ in range(steps):
        optimizer.zero_grad()
        weight.square().mean().backward()
        optimizer.step()
    return weight.detach(), optimizer, weight


def test_eight_bits_take_nearly_the_steps_of_float32():
    ours, _, _ = descended(eight_bits)
    theirs, _, _ = descended(lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.01))
    # Each value has gone 0.3 by then.
    assert (ours - theirs).abs().mean() < 0.02
    assert ours.norm() < 0.9 * 64


def test_moments_of_large_tensors_take_a_byte_and_small_ones_are_float32():
    def num_bytes(shape):
        _, optimizer, weight = descended(eight_bits, shape, 1)
        moment = optimizer.state[weight]["exp_avg"]
        return moment.codes.nbytes if hasattr(moment, "codes") else moment.nbytes

    assert num_bytes((64, 64)) == 64 * 64
    assert num_bytes((16, 16)) == 16 * 16 * 4


def test_the_rate_may_be_set_as_a_number():
    weight, optimizer, parameter = descended(eight_bits, steps=1)
    optimizer.param_groups[0]["lr"] = 0.0
    parameter.grad = torch.ones_like(parameter)
    before = weight.clone()
    optimizer.step()
    assert torch.equal(parameter, before)


WANTED = {
    "acceleration.quantization: int8": {"acceleration": {"quantization": "int8"}},
    "optimization.optimizer: adamw8bit": {"optimization": {"optimizer": "adamw8bit"}},
}


@pytest.mark.parametrize("what", WANTED)
def test_without_torchao_it_is_said_what_to_install(what, monkeypatch):
    check_lowbit(spec_of(**WANTED[what]), CPU)
    without(monkeypatch, "torchao")
    with pytest.raises(SpecError, match=rf"{what} needs torchao, .* install .*rayreel\[lowbit\]"):
        check_lowbit(spec_of(**WANTED[what]), CPU)
    check_lowbit(spec_of(acceleration={"quantization": "fp8"}), CPU)


def test_eight_bits_on_cuda_need_triton(monkeypatch):
    without(monkeypatch, "triton")
    spec = spec_of(optimization={"optimizer": "adamw8bit"})
    check_lowbit(spec, CPU)
    with pytest.raises(SpecError, match="by triton, which is not installed"):
        check_lowbit(spec, torch.device("cuda"))


def test_int8_is_not_offloaded():
    spec = spec_of(acceleration={"quantization": "int8", "offload": True})
    with pytest.raises(SpecError, match="int8 cannot be offloaded"):
        check_lowbit(spec, CPU)


def test_loggers_have_their_level_again_afterwards():
    logger = logging.getLogger("torchao")
    logger.setLevel(logging.INFO)
    with lowbit.quiet_torchao():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == logging.INFO
    logger.setLevel(logging.NOTSET)
