import pytest
import torch
from torch import nn

from rayreel.training.ema import Ema


def _averaged():
    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.bfloat16))
    return weight, Ema({"weight": weight}, decay=0.75)


def test_the_average_follows_the_weights_in_float32():
    weight, ema = _averaged()
    weight.data.fill_(5)
    ema.update(1000)
    assert ema.average["weight"].tolist() == [2.0, 2.75]
    weight.data.fill_(0)
    ema.update(1000)
    assert ema.average["weight"].tolist() == [1.5, 2.0625]
    assert ema.average["weight"].dtype == torch.float32


def test_what_there_was_at_first_is_soon_forgotten():
    weight = nn.Parameter(torch.tensor([0.0]))
    ema = Ema({"weight": weight}, decay=0.999)
    weight.data.fill_(1)
    kept = []
    for step in range(100):
        ema.update(step)
        kept.append(1 - ema.average["weight"].item())
    assert kept[0] == pytest.approx(0.1)
    assert kept[1] == pytest.approx(0.1 * 2 / 11)
    assert kept[-1] < 1e-6


def test_the_weights_are_the_average_for_a_while():
    weight, ema = _averaged()
    weight.data.fill_(5)
    with ema.applied():
        assert weight.tolist() == [1, 2]
    assert weight.tolist() == [5, 5]
    assert ema.average["weight"].tolist() == [1, 2]
