"""Muon: equal singular values, at AdamW's rates, and never on a part of a matrix."""

from unittest.mock import patch

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rayreel.config.train import TrainSpec
from rayreel.training import muon as muon_module
from rayreel.training.group import joined
from rayreel.training.muon import Muon, orthogonal, shared_out
from tests.training.processes import in_two_processes


def muon(*weights, rate=0.1, decay=0.0):
    return Muon(weights, learning_rate=rate, betas=(0.9, 0.99), weight_decay=decay)


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(16, 16), (8, 64), (64, 8)])
def test_singular_values_become_equal_and_directions_stay(shape):
    matrix = drawn(*shape)
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0) > 0.95


@pytest.mark.parametrize("shape", [(32, 32), (32, 8, 3, 3, 3), (64, 2, 3, 3), (8,)])
def test_steps_are_of_the_size_of_adamws_whatever_that_of_the_gradient(shape):
    for scale in (1e-4, 1e4):
        weight = nn.Parameter(torch.zeros(shape))
        optimizer = muon(weight)
        for _ in range(3):
            weight.grad = drawn(*shape) * scale
            before = weight.detach().clone()
            optimizer.step()
        moved = (weight.detach() - before).square().mean().sqrt() / 0.1
        assert 0.1 < moved < 0.3 if len(shape) > 1 else 0.9 < moved < 1.1


def test_a_linear_map_is_learnt():
    inputs, wanted, weight = drawn(64, 24), drawn(24, 24), nn.Parameter(torch.zeros(24, 24))
    optimizer = muon(weight)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        wrong = (inputs @ (weight - wanted)).square().mean()
        (weight.grad,) = torch.autograd.grad(wrong, weight)
        optimizer.step()
    assert (weight - wanted).abs().max() < 0.01


def test_weights_are_taken_off_in_shares():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    muon(weight, rate=0.1, decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))


@pytest.mark.parametrize(
    "values",
    [{"workers": {"num_workers": 2}}, {"acceleration": {"offload": True}}],
)
def test_split_weights_are_refused(values):
    given = {"dataset": "data", "optimization": {"optimizer": "muon"}, **values}
    with pytest.raises(ValidationError, match=r"sharding: replicate"):
        TrainSpec.model_validate(given)


def test_processes_share_the_work_and_move_alike():
    alone = shared_out(matrices())
    for found in in_two_processes(moves_of_a_process):
        for move, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(move, expected, atol=0, rtol=0)


def moves_of_a_process():
    with joined("cpu"):
        made = [0]
        whole = muon_module.orthogonal

        def counted(matrix):
            made[0] += 1
            return whole(matrix)

        with patch.object(muon_module, "orthogonal", counted):
            moves = shared_out(matrices())
        assert 0 < made[0] < len(matrices()), "the other process makes the rest"
        return moves


def matrices():
    return [drawn(*shape) for shape in ((16, 16), (8, 64), (64, 8), (32, 4), (3, 5))]
