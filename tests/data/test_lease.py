"""One driver per run directory."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rayreel.data import lease as lease_module
from rayreel.data.lease import FILE, Holder, Lease
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError, StorageError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in {"RENEW_S": 0.1, "STALE_S": 1.0, "POLL_S": 0.05, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(lease_module, name, value)


def holder(storage: Storage) -> Holder:
    return Holder.model_validate_json(storage.read_bytes(FILE))


def other_machine(storage: Storage) -> Holder:
    """A lease of a process that nothing is known of."""
    with Lease(storage):
        found = holder(storage).model_copy(update={"host": "elsewhere", "token": "theirs"})
    storage.write_bytes(FILE, found.model_dump_json().encode())
    return found


def test_a_lease_is_renewed_while_it_is_held_and_then_gone(storage):
    with Lease(storage) as lease:
        first = holder(storage)
        time.sleep(0.5)
        assert holder(storage).beat > first.beat
        assert first.pid == os.getpid()
        lease.check()
    assert not storage.exists(FILE)


def test_a_second_driver_is_refused_and_told_whom_to_stop(storage, caplog):
    with Lease(storage) as first:
        with pytest.raises(RayreelError, match=f"process {os.getpid()} on .*, since 20"):
            Lease(storage).__enter__()
        first.check()
        assert holder(storage).token == first._holder.token
    assert "waiting for up to 1 s" in caplog.text


def test_a_lease_is_free_after_an_error(storage):
    with pytest.raises(ZeroDivisionError), Lease(storage):
        raise ZeroDivisionError
    with Lease(storage) as lease:
        lease.check()


def test_a_lease_that_nobody_renews_is_taken_over(storage, caplog):
    other_machine(storage)
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), Lease(storage) as lease:
        assert time.monotonic() - start > 1
        assert holder(storage).token != "theirs"
        lease.check()
    assert "on elsewhere" in caplog.text
    assert not storage.exists(FILE)


def test_of_many_that_take_over_one_does(storage):
    other_machine(storage)
    leases = [Lease(storage) for _ in range(4)]

    def enter(lease):
        try:
            lease.__enter__()
        except RayreelError:
            return False
        return True

    with ThreadPoolExecutor(4) as drivers:
        entered = list(drivers.map(enter, leases))
    time.sleep(0.5)
    kept = [
        lease for lease, has in zip(leases, entered, strict=True) if has and not lease._taken_by
    ]
    for lease in leases:
        lease._ended.set()
    assert len(kept) == 1


def test_a_driver_that_was_taken_over_is_told_and_leaves_the_file(storage):
    with Lease(storage) as lease:
        theirs = holder(storage).model_copy(update={"token": "theirs", "host": "elsewhere"})
        with lease._renewing:
            storage.write_bytes(FILE, theirs.model_dump_json().encode())
        time.sleep(0.5)
        with pytest.raises(RayreelError, match=r"taken over by process .* on elsewhere"):
            lease.check()
    assert holder(storage).token == "theirs"


DRIVER = """
import sys, time
from rayreel.data.lease import Lease
from rayreel.data.storage import Storage
with Lease(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_driver_of_this_machine_that_was_killed_is_known_at_once(tmp_path, monkeypatch):
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        driver.send_signal(signal.SIGKILL)
    monkeypatch.setattr(lease_module, "STALE_S", 60.0)
    start = time.monotonic()
    with Lease(Storage(tmp_path)) as lease:
        lease.check()
    assert time.monotonic() - start < 10


def test_a_process_of_another_container_is_not_taken_for_dead(tmp_path):
    storage = Storage(tmp_path)
    found = other_machine(storage)
    changed = {"host": socket.gethostname(), "pid": 2**22, "namespace": "pid:[1]"}
    assert not lease_module._is_gone(found.model_copy(update=changed))
    changed["namespace"] = lease_module._namespace()
    assert lease_module._is_gone(found.model_copy(update=changed))
    assert lease_module._is_gone(holder_of_this_process(found, started=1.0))
    assert not lease_module._is_gone(holder_of_this_process(found, started=found.started))


def holder_of_this_process(found: Holder, *, started: float) -> Holder:
    host = socket.gethostname()
    return found.model_copy(update={"host": host, "pid": os.getpid(), "started": started})


def test_a_store_that_fails_for_a_while_costs_no_lease(storage, monkeypatch, caplog):
    failing = threading.Event()
    write = Storage.write_bytes

    def write_bytes(self, name, data):
        if failing.is_set():
            raise StorageError("away")
        write(self, name, data)

    monkeypatch.setattr(Storage, "write_bytes", write_bytes)
    with Lease(storage) as lease:
        failing.set()
        time.sleep(0.5)
        lease.check()
        time.sleep(1)
        with pytest.raises(StorageError):
            lease.check()
        failing.clear()
        lease.check()
    assert "could not be renewed" in caplog.text


def test_a_file_that_says_nothing_is_not_guessed_at(tmp_path):
    Storage(tmp_path).write_bytes(FILE, b"{}")
    with pytest.raises(RayreelError, match="remove it if nobody does"):
        Lease(Storage(tmp_path)).__enter__()
