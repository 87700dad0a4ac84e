import pytest
import torch
from torch import nn

from rayreel.config.train import OptimizationSpec
from rayreel.training.group import Group
from rayreel.training.order import Position
from rayreel.training.state import TrainState

CPU = torch.device("cpu")


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2).requires_grad_(False))


def _state(model, *, world=1, **fields):
    return TrainState(model, OptimizationSpec(**fields), Group(0, world, CPU))


def _train(model, state, steps):
    for seed in range(state.step, state.step + steps):
        inputs = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))
        state.optimizer.zero_grad()
        model(nn.functional.dropout(inputs, 0.5)).square().sum().backward()
        state.optimizer.step()
        if state.ema:
            state.ema.update(state.step)
        state.step, state.samples = state.step + 1, state.samples + 4
    state.position = Position(3, 1)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "muon"])
def test_a_restored_state_goes_on_to_the_bit(optimizer):
    model, other = _model(), _model()
    fields = {"optimizer": optimizer, "learning_rate": 0.01, "ema": 0.9}
    state, restored = _state(model, **fields), _state(other, **fields)
    _train(model, state, 3)
    own = state.own_tensors()
    kept = {name: one.clone() for name, one in (state.tensors() | own).items()}
    progress = state.progress
    _train(model, state, 3)

    into = restored.tensors()
    for name, tensor in into.items():
        tensor.copy_(kept[name])
    restored.restore(into | {name: kept[name] for name in own}, progress)
    assert (restored.step, restored.samples, restored.position) == (3, 12, Position(3, 1))
    _train(other, restored, 3)
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, restored.tensors()[name]), name


def test_only_what_learns_is_kept():
    names = _state(_model(), ema=0.5).tensors().keys()
    assert {name.split("/", 1)[1] for name in names if not name.startswith("optimizer")} == {
        "0.weight",
        "0.bias",
    }
    assert "optimizer/0.weight/exp_avg" in names


def test_another_number_of_processes_goes_on_with_widened_moments():
    model, other = _model(), _model()
    state = _state(model, optimizer="adamw8bit")
    restored = _state(other, optimizer="adamw8bit", world=2)
    _train(model, state, 3)
    torch.manual_seed(7)
    random = torch.get_rng_state()
    restored.restore(state.tensors(), state.progress)
    name = "optimizer/0.weight/exp_avg"
    expected, found = state.tensors()[name], restored.tensors()[name]
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0.05, atol=expected.abs().max() * 0.02)
    assert torch.equal(torch.get_rng_state(), random)
    assert restored.step == 3
