"""Metrics in parts: cut at checkpoints, and going on without doubled or lost steps."""

import time
from uuid import uuid4

import pytest

from rayreel.data.storage import Storage
from rayreel.training.tracking import MetricLog, read_metrics
from rayreel.training.tracking import metric_log as module
from tests.training.tracking.lines import line


@pytest.fixture(params=["disk", "store"])
def storage(request, tmp_path) -> Storage:
    if request.param == "disk":
        return Storage(tmp_path)
    server = request.getfixturevalue("s3_server")
    return Storage(f"{server.url}/{uuid4().hex}")


def log_steps(storage: Storage, first: int, last: int, *, cuts: tuple[int, ...] = ()) -> MetricLog:
    metrics = MetricLog(storage)
    metrics.resume(first - 1)
    for step in range(first, last + 1):
        metrics.log(line(step))
        if step in cuts:
            metrics.cut(step)
    return metrics


def steps(storage: Storage) -> list[int]:
    return [found["step"] for found in read_metrics(storage)]


def test_parts_begin_after_checkpoints(storage):
    log_steps(storage, 1, 5, cuts=(2, 4)).close("finished")
    assert storage.names("metrics") == [f"metrics/0000000{n}.jsonl" for n in (1, 3, 5)]
    assert read_metrics(storage) == [line(step) for step in range(1, 6)]


def test_resumed_run_replaces_what_came_after_its_checkpoint(storage):
    log_steps(storage, 1, 5, cuts=(2,)).flush()
    log_steps(storage, 3, 4).close("finished")
    assert steps(storage) == [1, 2, 3, 4]


def test_run_without_checkpoint_starts_over(storage):
    log_steps(storage, 1, 3).flush()
    log_steps(storage, 1, 2).close("finished")
    assert steps(storage) == [1, 2]


def test_part_that_goes_past_the_checkpoint_is_shortened(tmp_path):
    log_steps(Storage(tmp_path), 1, 5).close("failed")
    log_steps(Storage(tmp_path), 4, 4).close("finished")
    assert steps(Storage(tmp_path)) == [1, 2, 3, 4]


def test_steps_up_to_a_cut_are_there_when_it_returns(tmp_path):
    log_steps(Storage(tmp_path), 1, 4, cuts=(3,))
    assert steps(Storage(tmp_path))[:3] == [1, 2, 3]


def test_lines_are_written_after_a_while_without_being_asked(tmp_path):
    metrics = MetricLog(Storage(tmp_path), flush_s=0.02)
    metrics.log(line(1))
    deadline = time.monotonic() + 10
    while not steps(Storage(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert steps(Storage(tmp_path)) == [1]
    metrics.close("finished")


def test_long_parts_are_split_and_none_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_LINES", 3)
    log_steps(Storage(tmp_path), 1, 8).close("finished")
    assert len(Storage(tmp_path).names("metrics")) == 3
    assert steps(Storage(tmp_path)) == list(range(1, 9))


def test_writing_that_failed_is_done_the_next_time(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    metrics = log_steps(storage, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", _full)
        with pytest.raises(OSError, match="full"):
            metrics.cut(2)
    metrics.close("finished")
    assert steps(storage) == [1, 2]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    metrics = MetricLog(Storage(tmp_path))
    metrics.log(line(1, grad_norm=float("nan")))
    metrics.close("finished")
    assert read_metrics(Storage(tmp_path))[0]["grad_norm"] is None


def _full(*_: object) -> None:
    raise OSError("disk is full")
