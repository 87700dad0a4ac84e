"""Benchmarks of services: what a client sees is told in full."""

import http.server
import threading
from contextlib import contextmanager

import pytest

from rayreel.config.load import parse
from rayreel.config.request import RenderRequest
from rayreel.errors import SpecError
from rayreel.runs.bench import BenchSpec
from rayreel.runs.bench.serving import overhead
from rayreel.runs.bench.serving_process import JobTimes, Service, running_service

REQUEST = RenderRequest(prompt="a fox")


@contextmanager
def answering(status: int, said: bytes):
    """A server that gives every request the same answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = answer  # noqa: N815 - as the library calls them

        def log_message(self, *_):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def times(whole: float, stages: float) -> JobTimes:
    return JobTimes(answer=0.01, first_event=0.02, running=0.1, whole=whole, stages=stages)


def test_the_overhead_is_what_a_job_takes_besides_its_stages():
    line = overhead("fused", [times(0.9, 0.6), times(1.0, 0.8), times(9.0, 8.9)])
    assert line.items() >= {"overhead_ms": 200.0, "answer_ms": 10.0, "running_ms": 100.0}.items()
    assert (line["seconds"], line["baseline_seconds"]) == (1.0, 0.8)


def test_singles_must_leave_a_burst():
    size = {"width": 64, "height": 64, "frames": 9}
    case = {"type": "service_placements", **size, "clips": 3, "singles": 3}
    with pytest.raises(SpecError, match="singles=3 leave no burst of 3 clips"):
        parse({"cases": [case]}, BenchSpec, where="test")


def test_a_refused_clip_is_no_result(tmp_path):
    with answering(429, b"40 jobs wait") as url:
        service = Service(url, tmp_path)
        with pytest.raises(RuntimeError, match="429 40 jobs wait"):
            service.burst([REQUEST])
        service.close()


def test_a_service_that_cannot_start_says_why():
    with (
        pytest.raises(RuntimeError, match=r"field 'colour': unknown"),
        running_service({"model": "tiny", "colour": "red"}),
    ):
        pass
