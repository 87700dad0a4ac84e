"""Errors of all kinds in one shape, without what is nobody's business."""

import time

import pytest

from rayreel.errors import StorageError
from rayreel.serving.load import Load, PoolLoad
from tests.serving.api.test_videos import SMALL, data_uri


def break_store(service, monkeypatch, error, method="get"):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(type(service.store), method, fail)


def test_what_does_not_exist_and_what_may_not_be_done(client):
    for method, path, status in (
        ("GET", "/v2/videos", 404),
        ("GET", "/v1/videos/video_x", 404),
        ("PUT", "/v1/videos", 405),
        ("GET", "/v1/videos/", 404),
        ("GET", "/v1/models/nothing", 404),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status, path
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_failure_tells_a_name_that_the_log_has_and_nothing_else(
    client, service, monkeypatch, caplog
):
    break_store(service, monkeypatch, ValueError("secret words"), "submit")
    answer = client.post("/v1/videos", json=SMALL | {"prompt": "very private"})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    name = error["message"].split()[-1]
    assert name in caplog.text
    assert "ValueError" in caplog.text
    assert "secret words" not in caplog.text + answer.text
    assert "very private" not in caplog.text + answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_database_that_does_not_answer_is_said_with_when_to_come_again(
    client, service, monkeypatch
):
    break_store(service, monkeypatch, StorageError("postgres at 10.0.0.1 is down"))
    answer = client.get(f"/v1/videos/video_{'0' * 32}")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "10.0.0.1" not in answer.text


def test_files_of_a_job_that_may_be_in_the_queue_stay(client, service, monkeypatch):
    break_store(service, monkeypatch, StorageError("gone while committing"), "submit")
    body = SMALL | {"images": [{"path": data_uri()}]}
    assert client.post("/v1/videos", json=body).status_code == 503
    assert len(list(service.storage.local_path("uploads").rglob("*.png"))) == 1


def test_a_body_without_end_is_refused(client):
    def endless():
        for _ in range(40):
            yield b" " * 2**20

    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/videos", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_service_is_ready_once_all_its_parts_are(client, service, monkeypatch):
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    break_store(service, monkeypatch, StorageError("down"), "totals")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, False)


@pytest.mark.parametrize(
    ("replicas", "age_s", "status", "dispatcher"),
    [(0, 0, 503, True), (1, 100, 503, False), (2, 1, 200, True)],
)
def test_pools_and_their_dispatcher_have_to_be_there(
    client, service, replicas, age_s, status, dispatcher
):
    pool = PoolLoad(replicas=replicas, waiting_s=1, running_s=2, jobs=3, idle_s=0)
    load = Load(at=time.time() - age_s, pools={"decode": pool})
    object.__setattr__(service, "load", lambda: load)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["dispatcher"]) == (status, dispatcher)
    assert answer.json()["pools"]["decode"]["jobs"] == 3
