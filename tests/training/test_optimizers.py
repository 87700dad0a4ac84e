import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from rayreel.config.train import OptimizationSpec
from rayreel.errors import SpecError
from rayreel.training.optimizers import (
    check_schedule,
    learning_rate,
    make_state,
    optimizer_for,
)

STEPS = 40
Restarts = lr_scheduler.CosineAnnealingWarmRestarts


def _spec(schedule="linear", *, steps=STEPS, warmup=0, **fields):
    return OptimizationSpec(schedule=schedule, steps=steps, warmup=warmup, **fields)


def test_the_usual_schedule_falls_to_a_tenth():
    table = {0: 1e-4, 500: 7.75e-5, 1000: 5.5e-5, 1500: 3.25e-5, 2000: 1e-5, 3000: 1e-5}
    spec = _spec(steps=2000)
    assert {step: learning_rate(step, spec) for step in table} == pytest.approx(table)


@pytest.mark.parametrize(
    ("schedule", "params", "oracle", "arguments"),
    [
        ("constant", {}, lr_scheduler.ConstantLR, (1.0,)),
        ("linear", {}, lr_scheduler.LinearLR, (1.0, 0.1, STEPS)),
        ("linear", {"end_factor": 0.5, "total_iters": 9}, lr_scheduler.LinearLR, (1.0, 0.5, 9)),
        ("cosine", {}, lr_scheduler.CosineAnnealingLR, (STEPS,)),
        ("cosine", {"eta_min": 1e-5}, lr_scheduler.CosineAnnealingLR, (STEPS, 1e-5)),
        ("cosine_with_restarts", {}, Restarts, (STEPS // 4, 1, 5e-5)),
        ("cosine_with_restarts", {"T_0": 6, "T_mult": 2, "eta_min": 0}, Restarts, (6, 2)),
        ("polynomial", {"power": 2}, lr_scheduler.PolynomialLR, (STEPS, 2)),
        ("step", {}, lr_scheduler.StepLR, (STEPS // 2,)),
        ("step", {"step_size": 7, "gamma": 0.5}, lr_scheduler.StepLR, (7, 0.5)),
    ],
)
def test_schedules_are_those_of_pytorch(schedule, params, oracle, arguments):
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1e-4)
    theirs, expected = oracle(optimizer, *arguments), []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    spec = _spec(schedule, schedule_params=params)
    assert [learning_rate(step, spec) for step in range(STEPS)] == pytest.approx(expected)


def test_warm_up_rises_to_the_full_rate_and_the_schedule_ends_with_the_run():
    spec = _spec(steps=20, warmup=4)
    rates = [learning_rate(step, spec) for step in range(21)]
    assert rates[:5] == pytest.approx([2e-5, 4e-5, 6e-5, 8e-5, 1e-4])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[20] == pytest.approx(1e-5)


@pytest.mark.parametrize("schedule", ["cosine_with_restarts", "step"])
def test_a_run_of_one_step_has_a_schedule(schedule):
    assert learning_rate(0, _spec(schedule, steps=1)) == 1e-4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule_params": {"end_facto": 0.2}}, "did you mean end_factor?"),
        ({"schedule": "constant", "schedule_params": {"gamma": 1}}, "has no parameters"),
        ({"schedule": "step", "schedule_params": {"step_size": 0}}, "step_size=0 must be a whole"),
        ({"schedule": "cosine", "schedule_params": {"T_max": 2.5}}, "T_max=2.5 must be a whole"),
        ({"schedule": "cosine_with_restarts", "learning_rate": 1e-5}, "set .*eta_min to less"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        check_schedule(OptimizationSpec.model_validate(fields))


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "muon"])
def test_a_state_made_in_advance_is_that_of_an_optimiser_that_begins(name):
    made, usual = (
        (weight, optimizer_for([weight], _spec(optimizer=name)))
        for weight in (_weight(), _weight())
    )
    make_state(made[1])
    assert torch.equal(made[0], usual[0])
    assert made[0].grad is None
    for weight, optimizer in (made, usual):
        weight.grad = weight.detach() * 2
        optimizer.step()
    assert torch.equal(made[0], usual[0])
    assert not torch.equal(made[0], _weight())


def test_a_state_that_is_there_is_kept():
    weight = _weight()
    optimizer = optimizer_for([weight], _spec())
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    make_state(optimizer)
    assert optimizer.state[weight]["step"] == 1


def _weight():
    return nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
