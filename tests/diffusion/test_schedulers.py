import pytest
import torch

from rayreel.diffusion.schedulers import (
    DISTILLED_SIGMAS,
    SCHEDULERS,
    BetaScheduler,
    LinearQuadraticScheduler,
    LTX2Scheduler,
)


@pytest.mark.parametrize(
    "scheduler", [LTX2Scheduler(), LTX2Scheduler(terminal=None), LinearQuadraticScheduler()]
)
def test_one_step_goes_straight_to_clean(scheduler):
    assert scheduler.sigmas(1).tolist() == [1.0, 0.0]


def test_eight_linear_quadratic_steps_are_the_distilled_levels():
    ours = LinearQuadraticScheduler().sigmas(8)
    torch.testing.assert_close(ours, torch.tensor(DISTILLED_SIGMAS), rtol=0, atol=1e-7)


def test_beta_levels_that_coincide_are_merged():
    sigmas = BetaScheduler(table_size=10).sigmas(40)
    assert len(sigmas) < 41
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("linear_steps", [0, 9])
def test_linear_steps_must_fit(linear_steps):
    with pytest.raises(ValueError, match="linear_steps"):
        LinearQuadraticScheduler(linear_steps=linear_steps).sigmas(8)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_steps_are_rejected(name):
    with pytest.raises(ValueError, match="steps=0"):
        SCHEDULERS[name]().sigmas(0)
