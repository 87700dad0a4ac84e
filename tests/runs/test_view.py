"""A run over HTTP: whole files, ranges, and nothing beside the run."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
import uvicorn

from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.runs.view import make_app, serve_run

CLIP = bytes(range(256)) * 5000


class Client:
    """Requests to a server on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, path: str, method: str = "GET", **headers: str):
        """Status, headers and body of a response; the path goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, response.headers, body


@contextmanager
def served(storage: Storage) -> Iterator[Client]:
    server = uvicorn.Server(uvicorn.Config(make_app(storage), log_level="warning", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def write_run(storage: Storage) -> None:
    storage.write_bytes("index.html", "<h1>é</h1>".encode())
    storage.write_bytes("videos/a.mp4", CLIP)
    storage.write_bytes("gallery/index-0001.js", b"rayreel()")
    storage.write_bytes("empty.jsonl", b"")


@pytest.fixture(scope="module", params=["local", "object store"])
def get(request, tmp_path_factory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("view")
    (folder / "secret").write_text("not of the run")
    storage = Storage(folder / "run" if request.param == "local" else f"memory://{uuid4().hex}")
    write_run(storage)
    with served(storage) as client:
        yield client


def test_the_gallery_is_the_first_page(get):
    status, headers, body = get("/")
    assert (status, body.decode()) == (200, "<h1>é</h1>")
    assert headers["content-type"] == "text/html; charset=utf-8"


def test_a_clip_comes_whole(get):
    status, headers, body = get("/videos/a.mp4")
    assert (status, headers["content-type"], headers["accept-ranges"]) == (
        200, "video/mp4", "bytes",
    )  # fmt: skip
    assert body == CLIP


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, len(CLIP)),
        ("bytes=10-19", 10, 20),
        ("bytes=1000000-1200000", 1_000_000, 1_200_001),
        ("bytes=1279999-9999999", 1_279_999, len(CLIP)),
        ("bytes=-100", len(CLIP) - 100, len(CLIP)),
        ("bytes=-9999999", 0, len(CLIP)),
    ],
)
def test_a_part_of_a_clip_can_be_asked_for(get, asked, start, end):
    status, headers, body = get("/videos/a.mp4", Range=asked)
    assert status == 206
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(CLIP)}"
    assert headers["content-length"] == str(end - start)
    assert body == CLIP[start:end]


@pytest.mark.parametrize("asked", ["bytes=1280000-", "bytes=9999999-", "bytes=-0"])
def test_a_part_behind_the_end_is_refused_with_the_size(get, asked):
    status, headers, body = get("/videos/a.mp4", Range=asked)
    assert (status, headers["content-range"], body) == (416, "bytes */1280000", b"")


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=5-3", "bytes=0-1,5-6", "lines=1-2", "x"])
def test_what_is_no_range_means_the_whole_file(get, asked):
    status, _, body = get("/videos/a.mp4", Range=asked)
    assert (status, len(body)) == (200, len(CLIP))


def test_head_says_what_get_would(get):
    for headers in ({}, {"Range": "bytes=0-4"}):
        status, there, body = get("/videos/a.mp4", "HEAD", **headers)
        wanted = get("/videos/a.mp4", **headers)
        assert (status, there["content-length"]) == (wanted[0], wanted[1]["content-length"])
        assert body == b""


def test_types_are_those_that_browsers_need(get):
    assert get("/gallery/index-0001.js")[1]["content-type"] == "text/javascript; charset=utf-8"
    status, headers, body = get("/empty.jsonl")
    assert (status, headers["content-length"], body) == (200, "0", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.html",
        "/videos",
        "/videos/",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/videos/../../secret",
        "//secret",
        "/./index.html",
        "/%00",
        "/~partial.mp4",
    ],
)
def test_there_is_nothing_but_the_files_of_the_run(get, path):
    status, _, body = get(path)
    assert status == 404
    assert b"not of the run" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(get, method):
    assert get("/index.html", method)[0] == 405


def test_pages_that_lead_here_under_another_name_are_refused(get):
    assert get("/", Host="evil.example")[0] == 400
    assert get("/", Host="localhost:80")[0] == 200


def test_a_run_in_s3_is_served(s3_server):
    storage = Storage(f"{s3_server.url}/{uuid4().hex}")
    write_run(storage)
    with served(storage) as get:
        assert get("/videos/a.mp4", Range="bytes=256-600000")[2] == CLIP[256:600_001]
        assert get("/nothing")[0] == 404


def test_the_address_is_told_and_an_interrupt_ends_the_server(tmp_path):
    write_run(Storage(tmp_path))
    call = "import functools, sys; from rayreel.runs.view import serve_run as serve; "
    call += "serve(sys.argv[1], 0, functools.partial(print, flush=True))"
    with subprocess.Popen(
        [sys.executable, "-c", call, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        address = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", server.stdout.readline())
        assert address
        assert Client(int(address[1]))("/videos/a.mp4")[2] == CLIP
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0


def test_a_folder_without_a_gallery_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"has no index\.html; expected the directory of a run"):
        serve_run(str(tmp_path), 0, str)


def test_a_port_that_is_taken_is_refused(tmp_path):
    write_run(Storage(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpecError, match=f"cannot listen on port {port} .*or 0"):
            serve_run(str(tmp_path), port, str)
    with pytest.raises(SpecError, match="cannot listen on port 70000"):
        serve_run(str(tmp_path), 70_000, str)
