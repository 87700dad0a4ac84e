"""What is told of a job while it is made."""

import json
import threading
import time

import httpx
import pytest

from rayreel.errors import StorageError
from rayreel.serving.api import create_api, watch
from tests.serving.api.harness import LEASE
from tests.serving.api.server import serving
from tests.serving.api.test_videos import SMALL


@pytest.fixture
def server(service):
    with serving(create_api(service)) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture
def make(server):
    def make(**fields):
        return server.post("/v1/videos", json=SMALL | fields).raise_for_status().json()["id"]

    return make


def heard(server, video_id):
    """Events of a job one by one: name, data and id."""
    with server.stream("GET", f"/v1/videos/{video_id}/events") as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event = {}
        for line in answer.iter_lines():
            name, colon, value = line.partition(": ")
            if colon and name:
                event[name] = value
            elif not line and event:
                yield event["event"], json.loads(event["data"]), int(event["id"])
                event = {}


def test_a_job_is_followed_from_the_queue_to_its_end(server, service, worker, make):
    video_id = make()
    told = heard(server, video_id)
    name, data, _ = next(told)
    assert (name, data["position"]) == ("queued", 0)
    (job,) = worker.take()
    assert next(told)[0] == "running"
    service.store.wrote("the-test", video_id, "a fluffy cat", ())
    service.store.progress("the-test", [video_id], stage="stage1", step=1, steps=8)
    rest = [next(told)]
    while rest[-1][0] != "running" or rest[-1][1]["stage"] != "stage1":
        rest.append(next(told))
    assert ("prompt", {"prompt": "a fluffy cat"}) in [one[:2] for one in rest]
    assert (rest[-1][1]["step"], rest[-1][1]["steps"]) == (1, 8)
    worker.finish(job)
    (name, data, version), *more = list(told)
    assert (name, data["video"]["status"], more) == ("done", "completed", [])
    assert version == service.store.get(video_id).version


def test_who_comes_again_is_told_how_it_stands(server, worker, make):
    video_id = make()
    (job,) = worker.take()
    for _ in range(2):
        assert next(heard(server, video_id))[0] == "running"
    worker.finish(job)
    assert [name for name, _, _ in heard(server, video_id)] == ["done"]


def test_each_new_picture_is_told(server, service, worker, make):
    video_id = make()
    worker.take()
    told, seen = heard(server, video_id), []
    seen.append(next(told)[1]["preview"])
    for _ in range(2):
        pictures = {video_id: b"RIFF"}
        service.store.progress(LEASE, [video_id], stage="x", step=1, steps=8, pictures=pictures)
        seen.append(next(told)[1]["preview"])
    assert seen == [0, 1, 2]


def test_a_place_in_the_queue_is_told_as_it_changes(server, service, make):
    first, second = make(), make(seed=2)
    told = heard(server, second)
    assert next(told)[1]["position"] == 1
    service.store.ask_cancel(first)
    assert next(told)[1]["position"] == 0


def test_a_failure_and_a_cancellation_end_the_stream(server, service, worker, make):
    failing = make()
    worker.fail(*worker.take())
    cancelled = make()
    service.store.ask_cancel(cancelled)
    assert [(name, data) for name, data, _ in heard(server, failing)] == [
        ("failed", {"error": {"code": "MediaError", "message": "it broke"}})
    ]
    assert [(name, data) for name, data, _ in heard(server, cancelled)] == [("cancelled", {})]


def test_a_job_that_is_removed_ends_the_stream(server, service, make):
    video_id = make()
    told = heard(server, video_id)
    assert next(told)[0] == "queued"
    service.store.ask_cancel(video_id)
    service.store.delete(video_id)
    assert [name for name, _, _ in told] in ([], ["cancelled"])


def test_many_who_follow_ask_the_database_together(server, service, worker, make, monkeypatch):
    video_id = make()
    asked = []
    changed = service.store.changed

    def counted(_, versions):
        asked.append(versions)
        return changed(versions)

    monkeypatch.setattr(type(service.store), "changed", counted)
    start = time.monotonic()
    ends = []

    def follow():
        ends.append([name for name, _, _ in heard(server, video_id)][-1])

    threads = [threading.Thread(target=follow) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    worker.work()
    for thread in threads:
        thread.join(10)
    assert ends == ["done"] * 6
    assert len(asked) <= (time.monotonic() - start) / 0.2 + 1
    quiet = len(asked)
    time.sleep(0.5)
    assert len(asked) <= quiet + 1, "nobody follows any more"


def test_whoever_comes_new_is_told_at_once(server, make, monkeypatch):
    first, second = heard(server, make()), make()
    assert next(first)[0] == "queued"
    monkeypatch.setattr(watch, "_EVERY_S", 30.0)
    # The look that is on its way may still be followed by one of the others.
    time.sleep(0.5)
    start = time.monotonic()
    assert next(heard(server, second))[0] == "queued"
    assert time.monotonic() - start < 10


def test_streams_survive_a_database_that_does_not_answer(
    server, service, worker, make, monkeypatch
):
    video_id = make()
    told = heard(server, video_id)
    assert next(told)[0] == "queued"

    def fail(*_):
        raise StorageError("down")

    with monkeypatch.context() as patch:
        patch.setattr(type(service.store), "changed", fail)
        time.sleep(0.5)
    worker.work()
    assert [name for name, _, _ in told][-1] == "done"
