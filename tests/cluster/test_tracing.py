"""Spans of an item meet in one trace, whoever sends them, and carry what is known of it."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rayreel.cluster.tracing import Tracer, tracing_target
from rayreel.errors import SpecError
from rayreel.stages.base import ItemFailure, TextItem


def item(name, attempt=1):
    return TextItem(item_id=name, attempt=attempt, text="a fox")


def failed(name, attempt=1):
    return ItemFailure(
        item_id=name,
        stage="decode",
        error="MediaError",
        message="no room",
        seed=None,
        attempt=attempt,
        seconds=1.0,
    )


@pytest.fixture
def collector():
    """Address of a collector, and the spans that it was sent."""
    spans = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                for one in (s for r in request.resource_spans for s in r.scope_spans):
                    spans.extend(one.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.05)
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
    server.server_close()


@pytest.fixture
def lines(tmp_path):
    """Spans in a folder, as they were written."""

    def read():
        files = sorted((tmp_path / "traces").glob("spans-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]

    return str(tmp_path / "traces"), read


def test_a_collector_gets_the_spans_of_workers_and_driver_as_one_trace(collector):
    address, spans = collector
    start = time.time_ns()
    for stage in ("stage1", "decode"):
        worker = Tracer("r1", tracing_target(address))
        worker.batch(stage, start, [item("a"), item("b")], [item("a"), item("b")])
        worker.close()
    driver = Tracer("r1", tracing_target(address))
    driver.item(start, item("a"))
    driver.close()
    mine = [span for span in spans if span.trace_id == spans[0].trace_id]
    assert [span.name for span in mine] == ["stage1", "decode", "item"]
    assert [span.parent_span_id for span in mine] == [mine[2].span_id, mine[2].span_id, b""]
    assert all(start == span.start_time_unix_nano < span.end_time_unix_nano for span in mine)
    assert len({span.trace_id for span in spans}) == 2


def test_a_span_says_what_is_known_of_the_item(lines):
    folder, read = lines
    tracer = Tracer("r1", tracing_target(folder))
    tracer.batch("decode", time.time_ns(), [item("a", 2), item("b")], [failed("a", 2), item("b")])
    bad, good = read()
    assert bad["attributes"].pop("rayreel.worker") == good["attributes"]["rayreel.worker"]
    about = {"run": "r1", "item": "a", "stage": "decode", "batch_size": 2, "attempt": 2}
    expected = {f"rayreel.{key}": value for key, value in about.items()}
    assert bad["attributes"] == {**expected, "error.type": "MediaError"}
    assert bad["status"] == {"status_code": "ERROR", "description": "no room"}
    assert good["status"]["status_code"] == "UNSET"


def test_what_had_failed_before_has_no_span(lines):
    folder, read = lines
    results = [failed("a"), item("b")]
    Tracer("r1", folder).batch("decode", time.time_ns(), results, results)
    (span,) = read()
    assert span["attributes"]["rayreel.item"] == "b"
    assert span["attributes"]["rayreel.batch_size"] == 1


def test_runs_have_traces_of_their_own(lines):
    folder, read = lines
    for run in ("r1", "r2", "r1"):
        Tracer(run, folder).item(time.time_ns(), item("a"))
    first, other, again = (span["context"]["trace_id"] for span in read())
    assert first == again != other


def test_processes_that_sample_keep_the_same_items(lines, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    folder, read = lines
    worker, driver = Tracer("r1", folder), Tracer("r1", folder)
    for name in "abcdefghijklmnopqrst":
        worker.batch("decode", time.time_ns(), [item(name)], [item(name)])
        driver.item(time.time_ns(), item(name))
    kept = [span["attributes"]["rayreel.item"] for span in read()]
    assert 0 < len(kept) < 40
    assert [kept.count(name) for name in set(kept)] == [2] * len(set(kept))


@pytest.mark.parametrize(
    ("asked", "environment", "target"),
    [
        (None, {}, None),
        ("http://host:4318/", {}, "http://host:4318/v1/traces"),
        ("runs/traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}, "runs/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host"}, "http://host/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://host/x"}, "http://host/x"),
    ],
)
def test_the_spec_says_where_traces_go_then_the_environment(asked, environment, target):
    assert tracing_target(asked, environment) == target


def test_a_protocol_that_is_not_spoken_is_refused():
    with pytest.raises(SpecError, match=r"grpc://host: expected http://"):
        tracing_target("grpc://host")


def test_without_a_target_nothing_is_kept():
    tracer = Tracer("r1", tracing_target(None, {}))
    start = time.perf_counter()
    for _ in range(1000):
        tracer.batch("decode", 0, [item("a")], [item("a")])
    assert time.perf_counter() - start < 0.5
    tracer.close()


def test_a_collector_that_does_not_answer_is_said_once_and_does_not_hold_up_the_end(
    monkeypatch, caplog
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        tracer = Tracer("r1", f"http://127.0.0.1:{closed.getsockname()[1]}/v1/traces")
        start = time.monotonic()
        while not caplog.messages and time.monotonic() < start + 20:
            tracer.item(time.time_ns(), item("a"))
            time.sleep(0.05)
        start = time.monotonic()
        tracer.close()
    assert time.monotonic() - start < 1.5
    assert len(caplog.messages) == 1
    assert "do not reach http://127.0.0.1" in caplog.messages[0]
