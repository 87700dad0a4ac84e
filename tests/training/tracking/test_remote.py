"""Servers never hold a run up, and never end one."""

import threading
from pathlib import Path

import pytest

from rayreel.training.tracking.remote import Remote
from tests.training.tracking.lines import line


class Kept:
    """A server that keeps what it is told, once it is let."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.free = threading.Event()
        self.fails_at = fails_at
        self.batches: list[list[int]] = []
        self.shown: dict[str, bytes] = {}
        self.status: str | None = None

    def connect(self) -> "Kept":
        self.free.wait(10)
        return self

    def lines(self, lines):
        self.batches.append([one["step"] for one in lines])
        if self.fails_at in self.batches[-1]:
            raise ConnectionError("no route")

    def clips(self, step, files):
        self.shown |= {f"{step}/{name}": path.read_bytes() for name, path in files.items()}

    def close(self, status):
        self.status = status


def test_busy_server_is_told_the_waiting_steps_together():
    server = Kept()
    remote = Remote("a server", server.connect)
    for step in range(1, 6):
        remote.log(line(step))
    server.free.set()
    remote.close("finished")
    assert server.batches == [[1, 2, 3, 4, 5]]
    assert server.status == "finished"


def test_clips_may_be_removed_at_once(tmp_path: Path):
    server = Kept()
    remote = Remote("a server", server.connect)
    clip = tmp_path / "fox.mp4"
    clip.write_bytes(b"video")
    remote.clips(3, {"fox": clip})
    clip.unlink()
    server.free.set()
    remote.close("finished")
    assert server.shown == {"3/fox": b"video"}


def test_clips_that_cannot_be_read_are_warned_about(tmp_path: Path, caplog):
    server = Kept()
    server.free.set()
    remote = Remote("a server", server.connect)
    remote.clips(3, {"fox": tmp_path / "gone.mp4"})
    remote.log(line(4))
    remote.close("finished")
    assert "a server is not shown the clips of step 3" in caplog.text
    assert server.batches == [[4]]


def test_server_that_fails_is_warned_about_and_told_no_more(caplog):
    server = Kept(fails_at=1)
    server.free.set()
    remote = Remote("a server", server.connect)
    remote.log(line(1))
    remote._thread.join(10)
    remote.log(line(2))
    remote.close("finished")
    assert server.batches == [[1]]
    assert "a server is told no more of this run, which goes on" in caplog.text
    assert "ConnectionError: no route" in caplog.text


def test_server_that_cannot_be_reached_is_warned_about(caplog):
    def connect() -> Kept:
        raise TimeoutError("nobody there")

    remote = Remote("a server", connect)
    remote.log(line(1))
    remote.close("finished")
    assert "TimeoutError: nobody there" in caplog.text


def test_end_of_a_run_does_not_wait_for_ever(caplog):
    server = Kept()
    remote = Remote("a server", server.connect, close_s=0.05)
    remote.close("failed")
    assert "a server did not take the end of the run in" in caplog.text
    server.free.set()
    remote._thread.join(10)
    assert server.status == "failed"
    remote.close("failed")


@pytest.fixture(autouse=True)
def _no_leaks(tmp_path: Path, monkeypatch):
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    yield
    assert not list(copies.iterdir())
