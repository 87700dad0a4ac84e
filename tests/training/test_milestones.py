"""After which steps something is left."""

import pytest

from rayreel.config.train import TrainSpec
from rayreel.training.milestones import Milestones


def milestones(*, checkpoints: int | None, validation: int | None, rows=("A fox.",), initial=True):
    spec = TrainSpec.model_validate(
        {
            "dataset": "data",
            "optimization": {"steps": 10},
            "checkpoints": {"interval": checkpoints},
            "validation": {"interval": validation, "rows": rows, "initial": initial},
        }
    )
    return Milestones(spec)


def steps(due) -> list[int]:
    return [step for step in range(11) if due(step)]


@pytest.mark.parametrize(("interval", "expected"), [(4, [4, 8, 10]), (5, [5, 10]), (None, [10])])
def test_checkpoints_come_at_their_interval_and_at_the_end(interval, expected):
    assert steps(milestones(checkpoints=interval, validation=None).checkpoint) == expected


def test_clips_are_made_before_the_first_step_unless_that_is_not_wanted():
    assert steps(milestones(checkpoints=None, validation=6).validation) == [0, 6, 10]
    assert steps(milestones(checkpoints=None, validation=6, initial=False).validation) == [6, 10]


def test_without_rows_there_is_nothing_to_look_at():
    due = milestones(checkpoints=3, validation=2, rows=())
    assert steps(due.validation) == []
    assert steps(due.any) == [3, 6, 9, 10]
