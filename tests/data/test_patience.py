"""Stores that fail, answer late or not at all, die and come back."""

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from aiohttp import ClientPayloadError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3fs import S3FileSystem

from rayreel.data import storage as storage_module
from rayreel.data.patience import Patience, is_transient
from rayreel.data.storage import Storage
from rayreel.errors import StorageError
from tests import s3


@pytest.fixture(autouse=True)
def fresh_clients(monkeypatch):
    """Clients are kept by their settings, which do not name the server."""
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET)
    yield
    S3FileSystem.clear_instance_cache()


def answer(code: str, status: int) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


def translated(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.EHOSTUNREACH, "no route to host"),
        EndpointConnectionError(endpoint_url="http://store"),
        ReadTimeoutError(endpoint_url="http://store"),
        ClientPayloadError(),
        answer("InternalError", 500),
        translated(OSError(errno.EBUSY, "slow down"), answer("SlowDown", 503)),
        translated(OSError(errno.EIO, "?"), answer("ConditionalRequestConflict", 409)),
        translated(FileNotFoundError(), answer("NoSuchUpload", 404)),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        FileExistsError(),
        PermissionError(),
        ValueError(),
        OSError(errno.ENOSPC, "no space"),
        NoCredentialsError(),
        answer("AccessDenied", 403),
        answer("NotImplemented", 501),
        translated(FileNotFoundError(), answer("NoSuchBucket", 404)),
        translated(PermissionError(), answer("InvalidAccessKeyId", 403)),
    ],
    ids=repr,
)
def test_what_stays_is_told_at_once(error):
    assert not is_transient(error)


class FakeStore:
    """A port whose requests are answered in turn, the last answer for ever; ``None`` is silence."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str | None) -> None:
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.requests = 0
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()
        port = self._socket.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            connection.recv(65536)
            status = self._answers[min(self.requests, len(self._answers) - 1)]
            self.requests += 1
            if status is None:
                self._held.append(connection)
                continue
            with connection:
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


def bucket(**options: float) -> Storage:
    return Storage(f"s3://bucket-{uuid4().hex}/run", **options)


def test_a_store_that_recovers_is_told_once(monkeypatch, caplog):
    store = FakeStore(monkeypatch, "503 Slow Down", "500 Internal", "200 OK")
    bucket().write_bytes("videos/a", b"1")
    assert store.requests == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "writing videos/a failed" in record.getMessage()


@pytest.mark.parametrize(
    ("status", "error"), [("403 Forbidden", PermissionError), ("404 Not Found", FileNotFoundError)]
)
def test_what_does_not_pass_is_asked_once(monkeypatch, status, error):
    store = FakeStore(monkeypatch, status)
    with pytest.raises(error):
        bucket().write_bytes("a", b"1")
    assert store.requests == 1


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "looking for a": lambda storage: storage.exists("a"),
    "listing a": lambda storage: storage.names("a"),
    "reading 1 files": lambda storage: storage.read_bytes("a"),
    "writing a": lambda storage: storage.write_bytes("a", b"1"),
    "creating a": lambda storage: storage.create_bytes("a", b"1"),
    "removing a": lambda storage: storage.remove(["a"]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_that_is_gone_is_told_in_time(monkeypatch, operation, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_free_port()}")
    start, storage = time.monotonic(), bucket(patience_s=0.5)
    with pytest.raises(StorageError) as caught:
        OPERATIONS[operation](storage)
    assert 0.1 < time.monotonic() - start < 3
    for part in (storage.uri, operation, "EndpointConnectionError"):
        assert part in str(caught.value)
    assert s3.SECRET not in str(caught.value) + caplog.text


def test_a_store_that_hangs_is_told_in_time(monkeypatch):
    FakeStore(monkeypatch, None)
    monkeypatch.setattr(storage_module, "ATTEMPT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(StorageError, match="writing a failed"):
        bucket(patience_s=1).write_bytes("a", b"1")
    assert time.monotonic() - start < 5


def test_passwords_in_uris_are_not_told(caplog):
    def refused() -> None:
        raise ConnectionRefusedError("ftp://user:secret@host/run/a")

    with pytest.raises(StorageError) as caught:
        Patience("ftp://user:secret@host/run", seconds=0.0)("reading a", refused)
    assert "ftp://***@host/run " in str(caught.value)
    assert "secret" not in str(caught.value) + caplog.text


class LosingRelay:
    """Passes requests on to a server, and loses its first answer that is not a go-ahead."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.lost = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            server = socket.create_connection(self._upstream)
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            threading.Thread(target=self._return, args=(server, client), daemon=True).start()

    def _return(self, server: socket.socket, client: socket.socket) -> None:
        with client, server:
            while data := server.recv(65536):
                if not self.lost and b" 100 Continue" not in data[:30]:
                    self.lost += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return


@pytest.mark.parametrize(("there", "created"), [(b"mine", True), (b"another's", False)])
def test_a_create_whose_answer_was_lost_knows_its_own_file(s3_server, monkeypatch, there, created):
    name, relay = uuid4().hex, LosingRelay(s3_server.endpoint)
    if not created:
        Storage(s3_server.url).create_bytes(name, there)
    monkeypatch.setenv("AWS_ENDPOINT_URL", relay.endpoint)
    S3FileSystem.clear_instance_cache()
    storage = Storage(s3_server.url)
    assert storage.create_bytes(name, b"mine") is created
    assert relay.lost == 1
    assert storage.read_bytes(name) == there


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "waited for half a minute"
        time.sleep(0.01)


def test_what_a_killed_server_had_answered_for_is_there_whole(s3_server):
    storage = Storage(f"{s3_server.url}/{uuid4().hex}")
    written: dict[str, bytes] = {}
    stop = threading.Event()

    def write(number: int) -> None:
        count = 0
        while not stop.is_set():
            name, data = f"f/{number}-{count}", os.urandom(1 << (count % 18))
            assert storage.create_bytes(name, data)
            written[name] = data
            count += 1

    with ThreadPoolExecutor(4) as writers:
        tasks = [writers.submit(write, number) for number in range(4)]
        wait_for(lambda: len(written) > 40)
        s3_server.kill()
        before = len(written)
        s3_server.start()
        wait_for(lambda: len(written) > before + 40)
        stop.set()
    assert [task.result() for task in tasks] == [None] * 4
    assert storage.names("f") == sorted(written)
    assert storage.read_many(written) == written
