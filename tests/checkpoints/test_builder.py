"""Building networks from weights, strictly."""

import pytest
import torch
from torch import nn

from rayreel.checkpoints.builder import build
from rayreel.errors import CheckpointError


class Small(nn.Module):
    """A linear layer, and a buffer of counts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))


@pytest.fixture
def weights():
    return {
        "linear.weight": torch.randn(2, 3),
        "linear.bias": torch.randn(2),
        "counts": torch.arange(2),
    }


def test_a_network_holds_the_weights_and_is_ready_for_inference(weights):
    model = build(Small, weights)
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_are_not_copied_where_nothing_changes(weights):
    assert build(Small, weights).linear.weight.data_ptr() == weights["linear.weight"].data_ptr()


def test_only_floating_point_weights_are_cast(weights):
    model = build(Small, weights, dtype=torch.bfloat16)
    assert model.linear.weight.dtype == torch.bfloat16
    assert model.counts.dtype == torch.int64


def test_modulation_tables_keep_the_precision_of_the_file():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale_shift_table = nn.Parameter(torch.zeros(2, 3))
            self.bias = nn.Parameter(torch.zeros(()))

    weights = {"scale_shift_table": torch.randn(2, 3), "bias": torch.randn(())}
    model = build(Table, weights, dtype=torch.bfloat16)
    assert torch.equal(model.scale_shift_table, weights["scale_shift_table"])
    assert model.bias.dtype == torch.bfloat16


def test_missing_unexpected_and_misshapen_weights_are_listed_together(weights):
    del weights["linear.bias"]
    wrong = {**weights, "linear.weight": torch.zeros(3, 2), "other": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        build(Small, wrong, source="a.safetensors")
    assert str(caught.value).splitlines() == [
        "a.safetensors does not fit the network Small:",
        "  missing (1): linear.bias",
        "  unexpected (1): other",
        "  wrong shape (1): linear.weight: expected (2, 3), got (3, 2)",
    ]


def test_long_lists_are_cut_but_counted(weights):
    extra = {f"extra{index:02}": torch.zeros(1) for index in range(20)}
    with pytest.raises(CheckpointError, match=r"unexpected \(20\): extra00, .*, and 8 more$"):
        build(Small, {**weights, **extra})


def test_a_network_that_cannot_be_made_is_an_unsupported_file(weights):
    def make() -> nn.Module:
        raise ValueError("unknown block 'fold'")

    with pytest.raises(CheckpointError, match=r"a\.safetensors: .* unknown block 'fold'"):
        build(make, weights, source="a.safetensors")
