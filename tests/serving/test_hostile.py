"""The whole API under input that nobody means well with: no failure, no leak, nothing left."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from rayreel.serving.api import create_api
from tests.serving.api.harness import Worker, make_clip, make_service
from tests.serving.gate.test_files import data_uri, png

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "num_frames": 9}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
LOCAL = {"Host": "localhost"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path)


@pytest.fixture
def worker(tmp_path, clip, monkeypatch) -> Iterator[Worker]:
    monkeypatch.setenv("RAYREEL_ADAPTERS", str(tmp_path / "adapters"))
    service, worker = make_service(tmp_path / "serve", clip)
    yield worker
    service.store.close()


@pytest.fixture
def client(worker) -> Iterator[TestClient]:
    with TestClient(create_api(worker.service), base_url="http://localhost") as client:
        yield client


def finished_job(client: TestClient, worker: Worker) -> str:
    answer = client.post("/v1/videos", json=SMALL)
    assert answer.status_code == 200, answer.text
    worker.work()
    return str(answer.json()["id"])


def fuzz(worker: Worker, max_examples: int) -> None:
    """Every operation with whatever its schema allows, and with what it does not."""
    worker.by_itself = True
    app = create_api(worker.service, patience_s=0.5)
    schema = from_asgi("/openapi.json", app, headers=LOCAL)
    with TestClient(app, base_url="http://localhost") as client:
        known = finished_job(client, worker)
    count = 0
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    for operation in operations:

        @settings(
            max_examples=max_examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            nonlocal count
            count += 1
            if "video_id" in case.path_parameters and count % 2 and case.method != "DELETE":
                case.path_parameters["video_id"] = known
            checks = CHECKS
            if case.path.endswith("/events"):
                # The schema tells of the stream; schemathesis takes it for that of an event.
                checks = CHECKS[:3]
            elif case.path == "/readyz":
                # What is not ready says 503, and the load that is told here gets old.
                checks = CHECKS[1:]
            case.validate_response(case.call(headers=LOCAL), checks=checks)

        check()
    assert count > 10


def test_answers_to_a_few_random_requests_are_as_the_schema_says(worker):
    fuzz(worker, 3)


@pytest.mark.slow
def test_answers_to_many_random_requests_are_as_the_schema_says(worker):
    fuzz(worker, 100)


DEEP = "[" * 100_000 + "]" * 100_000
BODIES = [
    "",
    "{",
    "null",
    "[]",
    '"text"',
    "{" + '"prompt": ' + DEEP + "}",
    '{"prompt": "a", "tags": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
    '{"prompt": "a", "seed": ' + "9" * 10_000 + "}",
    '{"prompt": "a", "seed": 1e400}',
    '{"prompt": "a", "fps": NaN}',
    '{"prompt": "a", "fps": Infinity}',
    '{"prompt": "a\\u0000b"}',
    '{"prompt": "\\ud800"}',
    '{"prompt": "a", "tags": {"\\ud800": "x"}}',
    '{"prompt": "a", "tags": {"a\\u0000": "x"}}',
    '{"prompt": "a", "prompt": 1}',
    '{"prompt": ["a"]}',
    '{"prompt": "   "}',
    '{"prompt": "a", "__proto__": {}}',
    '{"prompt": "a", "size": "999999999999x1"}',
    '{"prompt": "a", "size": "-1x-1"}',
    '{"prompt": "a", "seconds": "1e999"}',
    '{"prompt": "a", "num_frames": -1}',
    '{"prompt": "a", "num_frames": 9007199254740993}',
    '{"prompt": "a", "seconds": 86400, "fps": 240}',
    '{"prompt": "a", "width": 8192, "height": 8192}',
    '{"prompt": "' + "a" * 20_000 + '"}',
    '{"prompt": "a", "sigmas": [' + "0.5," * 5000 + "0]}",
    '{"prompt": "a", "sigmas": [1, 0, 1]}',
    '{"prompt": "a", "model": "../../etc/passwd"}',
    '{"prompt": "a", "pipeline": "../../etc/passwd"}',
    '{"prompt": "a", "extend": {"clip": "../../jobs"}}',
    '{"prompt": "a", "extend": {"clip": "video_' + "0" * 32 + '"}}',
    '{"prompt": "a", "deadline_s": -1}',
    '{"prompt": "a", "priority": "root"}',
    '{"prompt": "a", "job_id": "x", "owner": "y"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("path", ["/v1/videos", "/v1/images"])
def test_hostile_bodies_are_refused_in_words(client, worker, path, body):
    kind = {"Content-Type": "application/json"}
    answer = client.post(path, content=body.encode(), headers=kind)
    assert 400 <= answer.status_code < 500
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert len(answer.content) < 5000
    assert worker.queue() == []


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}", b"\xef\xbb\xbf{", b"\x00\x00", '{"prompt": "é"}'.encode("latin-1")]
)
def test_bytes_that_are_no_text_are_refused(client, content):
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/videos", content=content, headers=headers).status_code == 400


FORMS: list[tuple[str, bytes]] = [
    ("multipart/form-data", b""),
    ("multipart/form-data; boundary=", b"--\r\n"),
    ("multipart/form-data; boundary=x", b""),
    ("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"),
    ("multipart/form-data; boundary=x; charset=nope", b"--y\r\n"),
    ("multipart/form-data; boundary=" + "x" * 5000, b"--x\r\n"),
    (
        "multipart/form-data; boundary=x",
        b"".join(
            b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\na\r\n' % n
            for n in range(2000)
        )
        + b"--x--",
    ),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="../x"; filename="../y"\r\n\r\na\r\n--x--',
    ),
    ("application/x-www-form-urlencoded", b"prompt=a"),
    ("text/plain", b'{"prompt": "a"}'),
    ("application/xml", b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>"),
    ("", b'{"prompt": "a"}'),
]


@pytest.mark.parametrize(("kind", "content"), FORMS, ids=range(len(FORMS)))
def test_hostile_forms_are_refused(client, worker, kind, content):
    answer = client.post("/v1/videos", content=content, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500
    assert "error" in answer.json()
    assert worker.queue() == []


FIELDS: list[dict[str, Any]] = [
    {"images": [{"path": "PATH"}]},
    {"input_reference": {"image_url": "PATH"}},
    {"references": [{"path": "PATH"}]},
    {"references": [{"path": data_uri(png()), "mask": "PATH"}]},
    {"soundtrack": {"path": "PATH"}},
    {"retake": {"path": "PATH", "start_s": 0, "end_s": 1}},
    {"extend": {"path": "PATH"}},
    {"extend": {"clip": "PATH"}},
    {"extend": {"clip": "a", "run": "PATH"}},
    {"extend": {"clip": "a", "latents": "PATH"}},
    {"loras": [{"path": "PATH"}]},
    {"lora": "PATH"},
]


@pytest.mark.parametrize("fields", FIELDS, ids="-".join)
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../jobs.sqlite", "file:///etc/passwd", "http://a/"]
)
def test_no_field_reaches_files_of_the_server(client, worker, fields, path):
    said = json.loads(json.dumps(SMALL | fields).replace("PATH", path))
    answer = client.post("/v1/videos", json=said)
    assert answer.status_code == 400
    assert "root:" not in answer.text
    assert worker.queue() == []
    uploads = Path(worker.service.storage.uri, "uploads")
    assert not uploads.exists() or list(uploads.rglob("*")) == []


IDS = [
    *("..%2f..%2fjobs.sqlite", "%2e%2e", "video_%00", "video_" + "A" * 32, "video_" + "0" * 32),
    *("a" * 5000, "%ff%fe", "video_" + "0" * 31 + "%27", "*", "..;", "signing.key", "..%5c.."),
]


@pytest.mark.parametrize("name", IDS, ids=range(len(IDS)))
def test_names_of_jobs_lead_nowhere_else(client, name):
    for method, path in (
        *(("GET", f"/v1/videos/{name}{tail}") for tail in ("", "/content", "/events")),
        ("DELETE", f"/v1/videos/{name}"),
        ("POST", f"/v1/videos/{name}/cancel"),
        ("GET", f"/v1/models/{name}"),
        ("GET", f"/static/{name}"),
        ("GET", f"/{name}"),
    ):
        answer = client.request(method, path, follow_redirects=False)
        assert 400 <= answer.status_code < 500, f"{method} {path}: {answer.status_code}"


QUERIES = [
    *("limit=0", "limit=-1", "limit=999999999999999999999", "limit=x", "order=up", "after=nobody"),
    *("after=%00", "status=root", "q=%00", "q=%25_%5c%27", "q=%ff", "tag=x", "tag=%00:a", "tag=:"),
    *("limit=1&limit=2", "after=" + "a" * 5000, "q=" + "a" * 20_000, "tag=" + "a:b&tag=" * 50),
]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_hostile_queries_do_not_break_the_list(client, query):
    assert client.get(f"/v1/videos?{query}").status_code in (200, 400, 404)


RANGES = [
    *("bytes=0-", "bytes=-1", "bytes=5-2", "bytes=-0", "bytes=99999999999999999999-", "bytes="),
    *("bytes=0-0," * 1000 + "0-0", "lines=1-2", "bytes=a-b", "bytes=1-1-1", "\x7f"),
]


@pytest.mark.parametrize("given", RANGES, ids=range(len(RANGES)))
def test_hostile_ranges_do_not_break_a_download(client, worker, given):
    name = finished_job(client, worker)
    answer = client.get(f"/v1/videos/{name}/content", headers={"Range": given})
    assert answer.status_code in (200, 206, 400, 416)
    assert len(answer.content) <= worker.clip.stat().st_size


@pytest.mark.parametrize("key", ["k" * 10_000, "", " ", "\x7f", "é".encode(), b"\xff" * 8])
def test_hostile_idempotency_keys_do_not_break_a_request(client, key):
    answer = client.post("/v1/videos", json=SMALL, headers={"Idempotency-Key": key})
    assert answer.status_code in (200, 400)


def test_jobs_of_one_key_are_hidden_from_another(tmp_path, clip, monkeypatch):
    monkeypatch.setenv("RAYREEL_ADAPTERS", str(tmp_path / "adapters"))
    service, worker = make_service(tmp_path / "serve", clip, keys=True)
    mine, theirs = (
        {"Authorization": f"Bearer {service.store.add_key(name)[1]}"} for name in ("me", "them")
    )
    with TestClient(create_api(service), base_url="http://api.example") as client:
        name = client.post("/v1/videos", json=SMALL, headers=mine).json()["id"]
        worker.work()
        paths = [f"/v1/videos/{name}{tail}" for tail in ("", "/content", "/events")]
        for path in paths:
            assert client.get(path, headers=theirs).status_code == 404
            assert client.get(path).status_code == 401
        asked = {"prompt": "b"}
        remix = client.post(f"/v1/videos/{name}/remix", json=asked, headers=theirs)
        extended = SMALL | {"extend": {"clip": name}}
        assert remix.status_code == 404
        assert client.post(f"/v1/videos/{name}/cancel", headers=theirs).status_code == 404
        assert client.delete(f"/v1/videos/{name}", headers=theirs).status_code == 404
        assert client.post("/v1/videos", json=extended, headers=theirs).status_code == 400
        assert client.get("/v1/videos", headers=theirs).json()["data"] == []
        job = service.store.get(name)
        assert job is not None
        token = service.auth.sign(job)
        assert client.get(f"/v1/videos/{name}/content?token={token}").status_code == 200
        assert client.get(f"/v1/videos/{name}/content?token={token}x").status_code == 404
        assert client.delete(f"/v1/videos/{name}?token={token}").status_code == 401
    service.store.close()


def test_every_operation_needs_a_key(tmp_path, clip):
    service, _ = make_service(tmp_path / "serve", clip, keys=True)
    app = create_api(service)
    operations = [
        (method, path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1")
    ]
    assert len(operations) > 10
    with TestClient(app, base_url="http://api.example") as client:
        for method, path in operations:
            assert client.request(method, path).status_code == 401, f"{method} {path}"
    service.store.close()


def test_neither_prompts_nor_keys_nor_files_are_logged(tmp_path, clip, caplog, monkeypatch):
    service, _ = make_service(tmp_path / "serve", clip, keys=True)
    _, secret = service.store.add_key("me")
    with (
        caplog.at_level(logging.DEBUG),
        TestClient(
            create_api(service), base_url="http://api.example", raise_server_exceptions=False
        ) as client,
    ):
        mine = {"Authorization": f"Bearer {secret}"}
        image = [{"path": data_uri(png())}]
        for fields in ({}, {"images": image}, {"width": 7}, {"images": [{"path": "WHISPER"}]}):
            said = SMALL | {"prompt": "WHISPER", "tags": {"a": "WHISPER"}} | fields
            client.post("/v1/videos", json=said, headers=mine)
        client.get("/v1/videos?q=WHISPER", headers=mine)
        client.post("/v1/videos", content=b'{"prompt": "WHISPER', headers=mine)
        client.get("/v1/videos", headers={"Authorization": f"Bearer {secret}x"})

        def broken(body: dict[str, Any]) -> None:
            raise RuntimeError(str(body))

        monkeypatch.setattr(service.planner, "plan", broken)
        failed = client.post("/v1/videos", json=SMALL | {"prompt": "WHISPER"}, headers=mine)
    assert failed.status_code == 500
    assert "WHISPER" not in failed.text
    assert "RuntimeError" in caplog.text
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    logged = "\n".join(logging.Formatter().format(record) for record in ours)
    for hidden in ("WHISPER", secret, "base64"):
        assert hidden not in logged
    service.store.close()


def test_a_refused_request_leaves_no_files(client, worker):
    body = SMALL | {"images": [{"path": data_uri(png())}], "width": 7}
    assert client.post("/v1/videos", json=body).status_code == 400
    folder = Path(worker.service.storage.uri)
    assert not [path for path in folder.rglob("*") if path.suffix == ".png"]
