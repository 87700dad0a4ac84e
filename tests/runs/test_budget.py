"""When a run that fails is stopped."""

import pytest

from rayreel.errors import RunStopped
from rayreel.runs.budget import ErrorBudget
from rayreel.stages.base import ItemFailure


def failure(message: str = "no such file: /a/1.png", error: str = "MediaError") -> ItemFailure:
    return ItemFailure(
        item_id="x", stage="stage1", error=error, message=message, seed=1, attempt=1, seconds=0.1
    )


def spend(budget: ErrorBudget, outcomes) -> int:
    """How many are counted before the run is stopped."""
    for number, outcome in enumerate(outcomes, start=1):
        try:
            budget.count(outcome)
        except RunStopped:
            return number
    return 0


def test_a_tenth_that_fails_is_over_a_budget_of_five_percent():
    tenth = [failure() if n % 10 == 9 else None for n in range(200)]
    assert spend(ErrorBudget(0.05, 200), tenth) == 60


def test_one_failure_in_two_hundred_is_not():
    assert spend(ErrorBudget(0.05, 200), [failure(), *[None] * 199]) == 0


def test_a_run_that_fails_everywhere_is_stopped_early():
    assert spend(ErrorBudget(0.05, 10**6), [failure()] * 100) == 6


def test_failures_late_in_a_long_run_count_against_all_that_was_finished():
    late = [*[None] * 900, *[failure()] * 100]
    assert spend(ErrorBudget(0.05, 1000), late) == 948


def test_without_a_budget_everything_may_fail():
    assert spend(ErrorBudget(1.0, 3), [failure()] * 3) == 0


def test_the_most_frequent_reason_comes_first():
    budget = ErrorBudget(0.5, 10)
    for number in range(4):
        budget.count(failure(f"cannot read /images/{number}.png"))
    budget.count(failure("has no frames", "ValueError"))
    with pytest.raises(RunStopped, match=r"6 of 6 clips failed, more than 50.0%") as stopped:
        budget.count(failure("cannot read /images/9.png"))
    first, second = str(stopped.value).splitlines()[1:]
    assert first.strip() == "5 x MediaError in stage1: cannot read"
    assert second.strip() == "1 x ValueError in stage1: has no frames"
