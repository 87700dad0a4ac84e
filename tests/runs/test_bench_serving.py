"""Benchmarks of services: what a client sees is told in full, and services end with their case."""

import http.server
import threading
from contextlib import ExitStack, contextmanager, nullcontext

import httpx
import pytest

from rayreel.config.load import parse
from rayreel.config.request import RenderRequest
from rayreel.errors import SpecError
from rayreel.runs.bench import BenchSpec, run, serving
from rayreel.runs.bench.serving import overhead, service_spec
from rayreel.runs.bench.serving_process import JobTimes, Service, running_service

CASE = {"width": 64, "height": 64, "frames": 9, "steps": 2}
PLACEMENTS = {"type": "service_placements", **CASE, "clips": 3, "singles": 1}
BATCHES = {"type": "service_batches", **CASE, "clips": 4, "batch": 2}
REQUEST = RenderRequest(prompt="a fox")


def lines_of(case):
    (lines,) = run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))
    return lines


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
    with pytest.raises(SpecError, match="singles=3 leave no burst of 3 clips"):
        parse({"cases": [{**PLACEMENTS, "singles": 3}]}, BenchSpec, where="test")


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


@pytest.fixture(scope="module")
def running():
    """A service, and what ends it."""
    with ExitStack() as stack:
        spec = service_spec(placement="split", workers={"cpus": 0.25})
        yield stack.enter_context(running_service(spec)), stack


@pytest.fixture
def sides(running, monkeypatch):
    """Both sides of a comparison are one service: what is told of them is then known."""
    service, _ = running
    monkeypatch.setattr(serving, "running_service", lambda _: nullcontext(service))


@pytest.mark.slow
def test_placements_are_compared_one_by_one_and_in_a_burst(sides):
    fused, split, latency, burst = lines_of(PLACEMENTS)
    for line in (fused, split):
        assert line["measure"] == "overhead"
        assert line["seconds"] > line["baseline_seconds"] > 0
        assert 0 < line["answer_ms"] < line["running_ms"] < 1000 * line["seconds"]
    for line in (latency, burst):
        assert line["speed_up"] == pytest.approx(line["baseline_seconds"] / line["seconds"], 0.01)


@pytest.mark.slow
def test_batches_are_compared_by_what_a_clip_takes(sides):
    (line,) = lines_of(BATCHES)
    assert line.items() >= BATCHES.items()
    assert line["speed_up"] == pytest.approx(line["baseline_seconds"] / line["seconds"], 0.01)


@pytest.mark.slow
def test_nothing_answers_once_a_service_is_ended(running):
    service, stack = running
    url = str(service._http.base_url)
    assert httpx.get(f"{url}/healthz").is_success
    stack.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")
