import pytest
import torch

from rayreel.diffusion.schedulers import (
    DISTILLED_SIGMAS,
    SCHEDULERS,
    BetaScheduler,
    LinearQuadraticScheduler,
    LTX2Scheduler,
    explicit_sigmas,
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


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_give_levels_that_a_person_could_have_written(name):
    sigmas = SCHEDULERS[name]().sigmas(12)
    assert torch.equal(explicit_sigmas(sigmas.tolist()), sigmas)


def test_written_levels_are_taken_as_they_are():
    sigmas = explicit_sigmas(DISTILLED_SIGMAS)
    assert torch.equal(sigmas, torch.tensor(DISTILLED_SIGMAS))
    assert sigmas.dtype == explicit_sigmas((1, 0)).dtype == torch.float32


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "at least 2 noise levels.*got 0"),
        ((1.0,), "at least 2 noise levels.*got 1"),
        ((1.5, 0.5, 0.0), r"level 0 is 1.5.*\(0, 1\]"),
        ((0.0, 0.0), "level 0 is 0"),
        ((float("nan"), 0.0), "level 0 is nan"),
        ((1.0, 0.5, 0.5, 0.0), "level 2 is 0.5.*before it, 0.5"),
        ((1.0, 0.5, 0.7, 0.0), "level 2 is 0.7.*before it, 0.5"),
        ((1.0, float("nan"), 0.0), "level 1 is nan"),
        ((1.0, 0.5, 0.5 - 1e-12, 0.0), "level 2 is 0.5"),
        ((1.0, 0.5), "level 1 is 0.5; the last one must be 0"),
        ((1.0, 0.5, -0.1), "level 2 is -0.1; the last one must be 0"),
    ],
)
def test_wrong_levels_are_told_with_their_place(levels, message):
    with pytest.raises(ValueError, match=message):
        explicit_sigmas(levels)
