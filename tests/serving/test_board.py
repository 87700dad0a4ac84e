"""What one process of a cluster tells, another reads."""

import time

import pytest
import ray
from ray.experimental import internal_kv

from rayreel.serving import board
from rayreel.serving.load import Load, PoolLoad

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

BUSY = PoolLoad(replicas=2, waiting_s=30.5, running_s=4.0, jobs=3, idle_s=0.0)


def test_the_last_load_is_read_in_any_process():
    for at in (1.0, 2.0):
        board.publish("told", Load(at=at, pools={"fused": BUSY}))
    read = ray.remote(num_cpus=0.1)(board.read)
    expected = Load(at=2.0, pools={"fused": BUSY})
    assert board.read("told") == ray.get(read.remote("told")) == expected


def test_applications_have_loads_of_their_own():
    board.publish("one", Load(at=1.0, pools={}))
    assert board.read("another") is None


def test_what_is_no_load_is_not_read(caplog):
    internal_kv._internal_kv_put("broken", "{", namespace="rayreel.serving")
    assert board.read("broken") is None
    assert "the load of broken is not one" in caplog.text


def test_reading_is_cheap():
    board.publish("cheap", Load(at=1.0, pools={"fused": BUSY}))
    start = time.perf_counter()
    for _ in range(20):
        board.read("cheap")
    assert time.perf_counter() - start < 2.0


def test_what_was_read_is_kept_for_a_moment(monkeypatch):
    reader = board.Reader("kept")
    first, second = (Load(at=at, pools={}) for at in (1.0, 2.0))
    board.publish("kept", first)
    assert reader.read() == first
    board.publish("kept", second)
    assert reader.read() == first
    monkeypatch.setattr(board, "_FRESH_S", 0.0)
    assert reader.read() == second
