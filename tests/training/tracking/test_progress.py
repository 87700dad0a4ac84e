"""The moving line of a run."""

import re

from rayreel.training.tracking import TrainingProgress
from tests.training.tracking.lines import line


def shown(capsys) -> str:
    """The last state of the bar."""
    return str(capsys.readouterr().err).rpartition("\r")[2]


def test_line_tells_steps_loss_rate_and_tokens(capsys):
    with TrainingProgress(4) as progress:
        for step in range(1, 5):
            progress.update(line(step, loss=0.5, tokens=2000))
    found = shown(capsys)
    assert "training" in found
    assert "4/4" in found
    assert "loss=0.5, lr=1.00e-04, 4.0k tokens/s" in found


def test_run_that_goes_on_begins_where_it_was(capsys):
    with TrainingProgress(10, done=6) as progress:
        assert "6/10" in shown(capsys)
        progress.update(line(7))
    said = str(capsys.readouterr().err)
    assert "0/10" not in said
    assert "7/10" in said.rpartition("\r")[2]


def test_run_that_lost_a_worker_goes_back(capsys):
    with TrainingProgress(10) as progress:
        for step in (1, 2, 3, 2):
            progress.update(line(step))
    assert "2/10" in shown(capsys)


def test_time_left_is_told_while_it_runs(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with TrainingProgress(100) as progress:
        for step in (1, 2, 3):
            progress.update(line(step))
        progress._bar.refresh()
        assert re.search(r"3/100 \[\d\d:\d\d<[\d:]+, ", shown(capsys))
