"""Fusing adapters into weights."""

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.keys import TRANSFORMER, component_tensors
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.quantization import quantize_per_tensor
from rayreel.checkpoints.reader import WeightFile
from rayreel.errors import CheckpointError
from rayreel.models.transformer import Transformer
from rayreel.types import seeded_generator
from tests.fusing import apply_adapters, fuse

SHAPES = {"a.weight": (6, 4), "b.weight": (5, 6), "norm.weight": (4,)}
E4M3 = torch.float8_e4m3fn
DOUBLE = torch.float64


def draw(name, shape):
    return torch.randn(shape, generator=seeded_generator(0, name))


@pytest.fixture
def weights():
    return {name: draw(name, shape) for name, shape in SHAPES.items()}


@pytest.fixture
def adapter(tmp_path):
    """Writes an adapter of some ranks, by module."""

    def write(name: str, strength: float, **ranks: int) -> Adapter:
        factors = {}
        for module, rank in ranks.items():
            rows, columns = SHAPES[f"{module}.weight"]
            for half, shape in {"A": (rank, columns), "B": (rows, rank)}.items():
                key = f"diffusion_model.{module}.lora_{half}.weight"
                factors[key] = draw(f"{name}/{key}", shape)
        save_file(factors, tmp_path / f"{name}.safetensors")
        return Adapter(WeightFile(tmp_path / f"{name}.safetensors"), strength)

    return write


def delta(adapter, module):
    """What an adapter adds to a weight."""
    prefix = f"diffusion_model.{module}.lora_"
    down, up = (adapter.file.tensor(f"{prefix}{half}.weight").double() for half in "AB")
    return adapter.strength * up @ down


def test_adapters_add_up_whatever_their_ranks(weights, adapter):
    first, second = adapter("first", 0.5, a=1, b=3), adapter("second", -2.0, a=2)
    fused = fuse(weights, [first, second], aggregate_dtype=DOUBLE)
    expected = weights["a.weight"].double() + delta(first, "a") + delta(second, "a")
    torch.testing.assert_close(fused["a.weight"], expected.float())
    expected = weights["b.weight"].double() + delta(first, "b")
    torch.testing.assert_close(fused["b.weight"], expected.float())


def test_given_weights_are_not_changed_and_others_are_shared(weights, adapter):
    before = {name: weight.clone() for name, weight in weights.items()}
    fused = fuse(weights, [adapter("first", 1.0, a=2)])
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    assert fused["b.weight"] is weights["b.weight"]
    assert fused.keys() == weights.keys()


def test_an_adapter_is_taken_out_by_its_negative_strength(weights, adapter):
    fused = fuse(weights, [adapter("first", 0.7, a=2, b=2)], aggregate_dtype=DOUBLE)
    back = fuse(fused, [adapter("first", -0.7, a=2, b=2)], aggregate_dtype=DOUBLE)
    assert not torch.allclose(fused["a.weight"], weights["a.weight"])
    for name in weights:
        torch.testing.assert_close(back[name], weights[name])


def test_an_adapter_of_strength_0_changes_nothing(weights, adapter):
    fused = fuse(weights, [adapter("first", 0.0, a=2)])
    assert all(fused[name] is weights[name] for name in weights)


def test_weights_keep_their_dtype_and_get_the_precision_of_the_sum(weights, adapter):
    first = adapter("first", 1.0, a=2)
    halves = {name: weight.bfloat16() for name, weight in weights.items()}
    assert fuse(halves, [first], aggregate_dtype=DOUBLE)["a.weight"].dtype == torch.bfloat16
    rounded = fuse(weights, [first])["a.weight"]
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())


def test_a_part_of_the_weights_is_fused_as_in_the_whole(weights, adapter, caplog):
    first = adapter("first", 1.0, a=2, b=2)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    part = {"b.weight": weights["b.weight"]}
    fused = fuse(part, [first], shapes=shapes)
    assert fused.keys() == part.keys()
    assert torch.equal(fused["b.weight"], fuse(weights, [first])["b.weight"])
    only_a = adapter("second", 1.0, a=1)
    assert fuse(part, [only_a], shapes=shapes) == part
    assert not caplog.records


def test_fused_weights_do_not_depend_on_the_dtype_of_the_network(tiny_model):
    files = ModelFiles(tiny_model)
    base = component_tensors(files.transformer_file, TRANSFORMER)
    adapters = files.adapters(distilled=True)
    assert adapters
    stored, cast = (
        build(
            lambda: Transformer(files.transformer), fuse(base, adapters), dtype=dtype
        ).state_dict()
        for dtype in (torch.bfloat16, torch.float32)
    )
    targets = adapters[0].targets({name: tuple(weight.shape) for name, weight in cast.items()})
    assert all(torch.equal(cast[name], stored[name].float()) for name in targets)


@pytest.fixture
def scaled(weights):
    """The same weights in float8, one of them with a scale."""
    values, scale = quantize_per_tensor(weights["a.weight"], E4M3)
    rounded = weights["b.weight"].to(E4M3)
    return weights | {"a.weight": values, "a.weight_scale": scale, "b.weight": rounded}


def test_scaled_float8_weights_get_a_scale_of_their_own(scaled, adapter):
    first = adapter("first", 2.0, a=2)
    fused = fuse(scaled, [first], aggregate_dtype=DOUBLE)
    expected = scaled["a.weight"].double() * scaled["a.weight_scale"] + delta(first, "a")
    scale = fused["a.weight_scale"]
    assert scale.item() == pytest.approx(expected.abs().max().item() / 448)
    # Half a step is at most 1/16 of a number, or of the smallest normal one.
    error = (fused["a.weight"].double() * scale - expected).abs()
    assert (error <= expected.abs().clamp(min=2**-6 * scale.item()) / 16).all()
    assert fused["a.weight"].dtype == E4M3
    assert fused["b.weight"] is scaled["b.weight"]


def test_unscaled_float8_weights_are_rounded_as_asked(scaled, adapter):
    first = adapter("first", 0.1, b=2)
    wide = fuse({"b.weight": scaled["b.weight"].bfloat16()}, [first])["b.weight"]
    nearest = fuse(scaled, [first])["b.weight"]
    assert torch.equal(nearest.float(), wide.to(E4M3).float())
    dithered = fuse(scaled, [first], rounding="stochastic")["b.weight"]
    again = fuse(scaled, [first], rounding="stochastic")["b.weight"]
    assert torch.equal(dithered.float(), again.float())
    assert not torch.equal(dithered.float(), nearest.float())
    assert (dithered.float() - wide.float()).abs().max() <= 1 / 8 * wide.abs().max()


class Net(torch.nn.Module):
    """Linear layers under the names of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(6, 5, bias=False)
        self.norm = torch.nn.RMSNorm(4)


def state(model):
    """Weights as bits can be compared: float8 is not."""
    return {name: weight.float().clone() for name, weight in model.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(params=["weights", "halves", "scaled"])
def base(request, weights):
    """Weights as files have them."""
    if request.param == "halves":
        return {name: weight.bfloat16() for name, weight in weights.items()}
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_adapters_of_a_loaded_network_are_exchanged_to_the_bit(base, adapter, dtype):
    before = {name: weight.float().clone() for name, weight in base.items()}
    first, second = [adapter("first", 1.0, a=2, b=1)], [adapter("second", 0.3, a=1)]
    plain = state(build(Net, base, dtype=dtype))
    model = build(Net, fuse(base, first), dtype=dtype)
    assert not equal(state(model), plain)
    apply_adapters(model, base, first, second)
    assert equal(state(model), state(build(Net, fuse(base, second), dtype=dtype)))
    apply_adapters(model, base, second, [])
    assert equal(state(model), plain)
    assert equal({name: weight.float() for name, weight in base.items()}, before)


def test_a_network_that_shares_its_weights_with_the_base_does_not_write_to_it(weights, adapter):
    model = build(Net, weights)
    untouched = weights["a.weight"].clone()
    apply_adapters(model, weights, [], [adapter("first", 1.0, a=2)])
    assert torch.equal(weights["a.weight"], untouched)
    assert not torch.equal(model.a.weight, untouched)


def test_only_weights_for_which_adapters_differ_are_made_anew(weights, adapter):
    first, second = adapter("first", 1.0, a=2, b=2), adapter("second", 1.0, b=1)
    model = build(Net, fuse(weights, [first]))
    kept, changed = model.a.weight, model.b.weight
    apply_adapters(model, weights, [first], [first, second])
    assert model.a.weight is kept
    assert model.b.weight is not changed


def test_adapters_that_do_not_fit_leave_the_network_as_it_was(weights, adapter, tmp_path):
    first = adapter("first", 1.0, a=2)
    model = build(Net, fuse(weights, [first]))
    before = state(model)
    save_file({"x.lora_A.weight": torch.ones(1, 1)}, tmp_path / "half.safetensors")
    half = Adapter(WeightFile(tmp_path / "half.safetensors"), 1.0)
    with pytest.raises(CheckpointError, match=r"half\.safetensors: lora_A or lora_B is missing"):
        apply_adapters(model, weights, [first], [adapter("second", 1.0, a=1), half])
    assert equal(state(model), before)


def test_adapters_are_named_after_their_files(adapter):
    names = [loaded.name for loaded in (adapter("first", 1.0, a=2), adapter("second", 0.5, b=1))]
    assert names == ["first", "second"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_float8_weights_are_rounded_stochastically(scaled, adapter):
    first = adapter("first", 0.1, b=2)
    fused = fuse(scaled, [first], device="cuda")["b.weight"]
    assert fused.is_cuda
    expected = fuse(scaled, [first], rounding="stochastic")["b.weight"]
    same = fused.float().cpu() == expected.float()
    # Products may differ in their last bit.
    assert same.float().mean() > 0.9
    model = build(Net, fuse(scaled, [first], device="cuda"), device="cuda")
    apply_adapters(model, scaled, [first], [])
    assert equal(state(model), state(build(Net, scaled, device="cuda")))
