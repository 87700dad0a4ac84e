"""Float8 weights: policies, sizes, and networks that hold them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rayreel.checkpoints.builder import build, outline
from rayreel.checkpoints.quantization import (
    cast_to_fp8,
    dequantize,
    meta_tensors,
    quantize,
    quantize_per_tensor,
    stored_bytes,
)
from rayreel.errors import CheckpointError
from rayreel.models.quantized import Fp8CastLinear, Fp8ScaledLinear, to_float8
from rayreel.types import seeded_generator

E4M3 = torch.float8_e4m3fn
WIDTH = 32
QUERY = "transformer_blocks.0.to_q"


class Block(nn.Module):
    """What the cast takes, and what it leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(WIDTH, WIDTH)
        self.to_gate_logits = nn.Linear(WIDTH, WIDTH, bias=False)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, WIDTH))

    def forward(self, x):
        return self.to_gate_logits(self.to_q(x))


class Net(nn.Module):
    """A block in the place where the transformer has its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([Block()])
        self.to_q = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.transformer_blocks[0](self.to_q(x))


@pytest.fixture
def weights():
    return {
        name: draw(name, weight.shape).to(
            torch.float32 if "scale_shift_table" in name else torch.bfloat16
        )
        for name, weight in Net().state_dict().items()
    }


@pytest.fixture
def scaled(weights):
    """The same, one layer of it in float8 with scales."""
    values, scale = quantize_per_tensor(weights[f"{QUERY}.weight"].float(), E4M3)
    extra = {"weight": values, "weight_scale": scale, "input_scale": torch.tensor(0.01)}
    return weights | {f"{QUERY}.{leaf}": tensor for leaf, tensor in extra.items()}


def draw(name, shape):
    return torch.randn(shape, generator=seeded_generator(0, name)) / WIDTH**0.5


def header(tensors):
    names = {torch.bfloat16: "BF16", torch.float32: "F32", E4M3: "F8_E4M3"}
    return {name: (tuple(t.shape), names[t.dtype]) for name, t in tensors.items()}


def test_the_cast_takes_weights_and_biases_of_linear_layers_in_blocks(weights):
    cast = cast_to_fp8(weights)
    changed = {name for name in weights if cast[name].dtype == E4M3}
    assert changed == {f"{QUERY}.weight", f"{QUERY}.bias"}
    assert all(cast[name] is weights[name] for name in weights.keys() - changed)
    assert torch.equal(cast[f"{QUERY}.bias"].float(), weights[f"{QUERY}.bias"].to(E4M3).float())


def test_scaled_weights_are_widened_before_they_are_cast(scaled):
    wide = dequantize(scaled)
    product = scaled[f"{QUERY}.weight"].float() * scaled[f"{QUERY}.weight_scale"]
    assert torch.equal(wide[f"{QUERY}.weight"], product.bfloat16())
    assert wide.keys() == Net().state_dict().keys()
    cast = quantize(scaled, "fp8_cast")
    assert torch.equal(cast[f"{QUERY}.weight"].float(), product.bfloat16().to(E4M3).float())
    assert cast.keys() == wide.keys()


def test_a_scaled_weight_outside_the_rule_becomes_bfloat16(weights):
    name = "to_q.weight"
    weights[name], weights[f"{name}_scale"] = quantize_per_tensor(weights[name].float(), E4M3)
    assert quantize(weights, "fp8_cast")[name].dtype == torch.bfloat16


def test_policies_leave_what_is_as_they_want_it(weights, scaled):
    assert quantize(scaled, "auto") == scaled
    assert quantize(weights, "none") == weights
    cast = cast_to_fp8(weights)
    assert quantize(cast, "fp8_cast") == cast
    assert quantize(cast, "none")[f"{QUERY}.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("policy", ["auto", "none", "fp8_cast"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float32])
def test_bytes_are_told_from_the_header(scaled, policy, dtype):
    model = build(Net, quantize(scaled, policy), dtype=dtype)
    held = sum(weight.nbytes for weight in model.state_dict().values())
    assert stored_bytes(header(scaled), policy, dtype) == held


def test_an_unknown_dtype_is_named():
    with pytest.raises(CheckpointError, match="type F4 are not supported; supported: BOOL"):
        meta_tensors({"weight": ((2, 2), "F4")})


def test_a_cast_network_computes_in_the_dtype_of_its_inputs(weights):
    cast = cast_to_fp8(weights)
    model = build(Net, cast, dtype=torch.float32)
    plain = build(Net, quantize(cast, "none"), dtype=torch.float32)
    assert isinstance(model.get_submodule(QUERY), Fp8CastLinear)
    x = draw("x", (3, WIDTH))
    assert torch.equal(model(x), plain(x))
    model = build(Net, cast, dtype=torch.bfloat16)
    assert model(x.bfloat16()).dtype == torch.bfloat16


def test_a_scaled_network_keeps_names_dtypes_and_scales_of_the_file(scaled):
    model = build(Net, scaled, dtype=torch.bfloat16)
    state = model.state_dict()
    assert isinstance(model.get_submodule(QUERY), Fp8ScaledLinear)
    assert all(torch.equal(state[name].float(), scaled[name].float()) for name in scaled)
    assert {name: state[name].dtype for name in scaled} == {
        name: tensor.dtype for name, tensor in scaled.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scaled_layers_round_their_inputs(scaled, dtype):
    layer = build(Net, scaled, dtype=dtype).get_submodule(QUERY)
    x = draw("x", (4, 3, WIDTH)).to(dtype) * 30
    # Beyond 448 times the scale inputs are cut.
    assert x.abs().max() > 4.48
    rounded = to_float8(x.float() / 0.01, E4M3).float() * 0.01
    weight = scaled[f"{QUERY}.weight"].float() * scaled[f"{QUERY}.weight_scale"]
    expected = F.linear(rounded, weight, scaled[f"{QUERY}.bias"].float())
    eps = torch.finfo(dtype).eps
    bound = 3 * eps * (F.linear(rounded.abs(), weight.abs()) + 1)
    # An input beside the middle of two float8 numbers may go to the other one.
    assert ((layer(x).float() - expected).abs() <= bound).float().mean() > 0.95
    assert layer(x).dtype == dtype


def test_a_layer_without_input_scale_multiplies_widened_weights(scaled):
    del scaled[f"{QUERY}.input_scale"]
    layer = build(Net, scaled, dtype=torch.float32).get_submodule(QUERY)
    x = draw("x", (3, WIDTH))
    weight = scaled[f"{QUERY}.weight"].float() * scaled[f"{QUERY}.weight_scale"]
    assert torch.equal(layer(x), F.linear(x, weight, scaled[f"{QUERY}.bias"].float()))


def test_a_bias_in_float8_has_its_scale(scaled):
    bias, scale = quantize_per_tensor(scaled[f"{QUERY}.bias"].float(), E4M3)
    scaled |= {f"{QUERY}.bias": bias, f"{QUERY}.bias_scale": scale}
    layer = build(Net, scaled, dtype=torch.float32).get_submodule(QUERY)
    assert torch.equal(layer(torch.zeros(1, WIDTH))[0], bias.float() * scale)
    wide = dequantize(scaled)
    assert torch.equal(wide[f"{QUERY}.bias"], (bias.float() * scale).bfloat16())
    assert wide.keys() == Net().state_dict().keys()


def test_headers_of_float8_files_are_checked_without_their_tensors(scaled):
    given = meta_tensors(header(scaled))
    assert outline(Net, given, source="a").state_dict().keys() == scaled.keys()
    del given[f"{QUERY}.bias"]
    given["other.weight"] = given[f"{QUERY}.weight"]
    with pytest.raises(CheckpointError) as caught:
        outline(Net, given, source="a")
    assert str(caught.value).splitlines()[1:] == [
        f"  missing (1): {QUERY}.bias",
        "  unexpected (1): other.weight",
    ]


def test_a_scale_beside_a_weight_that_needs_none_is_unexpected(weights):
    weights[f"{QUERY}.weight_scale"] = torch.ones(())
    with pytest.raises(CheckpointError, match=rf"unexpected \(1\): {QUERY}.weight_scale"):
        build(Net, weights)


def test_weights_in_integers_are_refused(weights):
    weights[f"{QUERY}.weight"] = torch.zeros(WIDTH, WIDTH // 2, dtype=torch.uint8)
    weights[f"{QUERY}.weight_scale"] = torch.zeros(128, 4).to(E4M3)
    with pytest.raises(CheckpointError, match=rf"a: {QUERY}.weight is stored as torch.uint8; NVFP"):
        build(Net, weights, source="a")


def test_float8_outside_linear_layers_is_refused(weights):
    name = "transformer_blocks.0.scale_shift_table"
    weights[name] = weights[name].to(E4M3)
    message = r"a: transformer_blocks.0 has float8 weights.* not Block; quantization 'none'"
    with pytest.raises(CheckpointError, match=message):
        build(Net, weights, source="a")


def test_zeros_and_outliers_have_scales_too():
    values, scale = quantize_per_tensor(torch.zeros(3), E4M3)
    assert torch.equal(values.float() * scale, torch.zeros(3))
    assert torch.equal(
        to_float8(torch.tensor([1e9, -1e9]), E4M3).float(), torch.tensor([448, -448.0])
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_in_float8_agree_with_those_that_are_not(monkeypatch, scaled, dtype):
    layer = build(Net, scaled, device="cuda", dtype=dtype).get_submodule(QUERY)
    x = draw("x", (64, WIDTH)).to("cuda", dtype)
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this device does not multiply float8 matrices")
    multiplied = layer(x)
    monkeypatch.setattr(Fp8ScaledLinear, "_multiplies_float8", lambda *_: False)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(multiplied, layer(x), rtol=tolerance, atol=tolerance)
