"""TensorBoard's files, read back by TensorBoard's own reader."""

import time
from pathlib import Path
from uuid import uuid4

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rayreel.data.storage import Storage
from rayreel.training.tracking.tensorboard import TensorBoard
from tests.training.tracking.lines import line


def log_steps(storage: Storage, first: int, last: int, *, cuts: tuple[int, ...] = ()) -> None:
    board = TensorBoard(storage, first - 1)
    for step in range(first, last + 1):
        board.log(line(step))
        if step in cuts:
            board.cut(step)
    board.close("failed")


def losses(folder: Path) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder)).Reload()
    return [(one.step, round(one.value, 4)) for one in found.Scalars("train/loss")]


def expected(last: int) -> list[tuple[int, float]]:
    return [(step, round(1 / step, 4)) for step in range(1, last + 1)]


def test_numbers_are_read_back(tmp_path):
    log_steps(Storage(tmp_path), 1, 3)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = found.Tags()["scalars"]
    assert {"train/loss_audio", "sigma/0.25-0.50", "speed/utilisation", "memory/gib"} < set(tags)
    assert found.Scalars("train/loss")[0].wall_time == line(1)["time"]
    assert losses(tmp_path / "tensorboard") == expected(3)


def test_files_end_at_checkpoints(tmp_path):
    log_steps(Storage(tmp_path), 1, 5, cuts=(2, 4))
    ends = [name.rpartition(".")[2] for name in Storage(tmp_path).names("tensorboard")]
    assert ends == ["done00000000", "done00000002", "done00000004"]
    assert losses(tmp_path / "tensorboard") == expected(5)


def test_resumed_run_has_no_step_twice(tmp_path):
    log_steps(Storage(tmp_path), 1, 5, cuts=(2,))
    log_steps(Storage(tmp_path), 3, 6)
    assert losses(tmp_path / "tensorboard") == expected(6)


def test_board_that_is_open_meanwhile_forgets_later_steps(tmp_path, monkeypatch):
    log_steps(Storage(tmp_path), 1, 5, cuts=(2,))
    watching = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    # Names of files tell the second, and a run does not come back in the same one.
    later = time.time() + 2
    monkeypatch.setattr(time, "time", lambda: later)
    log_steps(Storage(tmp_path), 3, 4)
    watching.Reload()
    assert [one.step for one in watching.Scalars("train/loss")] == [1, 2, 3, 4]


def test_cut_without_steps_changes_nothing(tmp_path):
    board = TensorBoard(Storage(tmp_path), 0)
    board.cut(0)
    board.log(line(1))
    board.cut(1)
    board.cut(1)
    board.close("finished")
    assert losses(tmp_path / "tensorboard") == expected(1)
    assert len(Storage(tmp_path).names("tensorboard")) == 2


def test_files_of_others_are_left_alone(tmp_path):
    other = tmp_path / "tensorboard" / "events.out.tfevents.1.elsewhere"
    other.parent.mkdir()
    other.write_bytes(b"")
    log_steps(Storage(tmp_path), 1, 1)
    assert other.exists()


def test_object_store_is_given_the_same(s3_server, tmp_path):
    storage = Storage(f"{s3_server.url}/{uuid4().hex}")
    log_steps(storage, 1, 5, cuts=(2,))
    log_steps(storage, 3, 6, cuts=(4,))
    for name in storage.names("tensorboard"):
        (tmp_path / name.rpartition("/")[2]).write_bytes(storage.read_bytes(name))
    assert losses(tmp_path) == expected(6)
