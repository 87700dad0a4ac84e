"""Fusing adapters into weights."""

import pytest
import torch
from safetensors.torch import save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.lora import Adapter, fuse
from rayreel.checkpoints.networks import transformer
from rayreel.checkpoints.reader import WeightFile
from rayreel.types import seeded_generator

SHAPES = {"a.weight": (6, 4), "b.weight": (5, 6), "norm.weight": (4,)}
DOUBLE = {"aggregate_dtype": torch.float64}


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
    fused = fuse(weights, [first, second], **DOUBLE)
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
    fused = fuse(weights, [adapter("first", 0.7, a=2, b=2)], **DOUBLE)
    back = fuse(fused, [adapter("first", -0.7, a=2, b=2)], **DOUBLE)
    assert not torch.allclose(fused["a.weight"], weights["a.weight"])
    for name in weights:
        torch.testing.assert_close(back[name], weights[name])


def test_an_adapter_of_strength_0_changes_nothing(weights, adapter):
    fused = fuse(weights, [adapter("first", 0.0, a=2)])
    assert all(fused[name] is weights[name] for name in weights)


def test_weights_keep_their_dtype_and_get_the_precision_of_the_sum(weights, adapter):
    first = adapter("first", 1.0, a=2)
    halves = {name: weight.bfloat16() for name, weight in weights.items()}
    assert fuse(halves, [first], **DOUBLE)["a.weight"].dtype == torch.bfloat16
    rounded = fuse(weights, [first])["a.weight"]
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())


def test_fused_weights_do_not_depend_on_the_dtype_of_the_network(tiny_model):
    files = ModelFiles(tiny_model)
    adapters = files.adapters(distilled=True)
    assert adapters
    cpu, network = torch.device("cpu"), transformer(files)
    stored = network.build(cpu, torch.bfloat16, adapters).state_dict()
    cast = network.build(cpu, torch.float32, adapters).state_dict()
    targets = adapters[0].targets({name: tuple(weight.shape) for name, weight in cast.items()})
    assert all(torch.equal(cast[name], stored[name].float()) for name in targets)
