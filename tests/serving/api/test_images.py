"""Pictures in one request."""

import base64
import io
import threading
import time

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from rayreel.serving.api import create_api
from tests.serving.api.server import serving

SMALL = {"prompt": "a cat", "size": "64x64"}


def test_pictures_come_in_the_answer_each_of_its_own_seed(client, worker):
    worker.by_itself = True
    answer = client.post("/v1/images/generations", json=SMALL | {"n": 2, "seed": 5})
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["data"]
    assert (first["seed"], second["seed"]) == (5, 6)
    assert Image.open(io.BytesIO(base64.b64decode(second["b64_json"]))).format == "PNG"
    assert answer.json()["size"] == "64x64"


def test_pictures_can_be_fetched_from_their_addresses(client, worker):
    worker.by_itself = True
    answer = client.post("/v1/images", json=SMALL | {"response_format": "url"})
    (made,) = answer.json()["data"]
    assert client.get(made["url"]).headers["Content-Type"] == "image/png"
    assert client.get(f"/v1/videos/{made['id']}").json()["object"] == "image"
    assert client.get("/v1/videos").json()["data"] == []


def test_pictures_of_several_have_random_seeds_unless_asked(client, worker):
    worker.by_itself = True
    first, second = client.post("/v1/images", json=SMALL | {"n": 2}).json()["data"]
    assert second["seed"] == first["seed"] + 1


def test_a_repeated_key_returns_the_same_pictures(client, worker):
    worker.by_itself = True
    answers = [
        client.post("/v1/images", json=SMALL | {"n": 2}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"n": 9}, "n"), ({"num_frames": 9}, "num_frames"), ({"quality": "hd"}, "quality"),
     ({"size": "large"}, "size"), ({"output_format": "webp"}, "output_format")],
)  # fmt: skip
def test_faults_of_a_picture_are_named(client, fields, param):
    error = client.post("/v1/images", json=SMALL | fields).json()["error"]
    assert error["param"] == param


def test_a_failed_picture_is_an_error_with_its_reason(client, worker, monkeypatch):
    async def wake():
        worker.fail(*worker.take())

    object.__setattr__(worker.service, "wake", wake)
    answer = client.post("/v1/images", json=SMALL)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "MediaError")
    assert answer.json()["error"]["message"] == "it broke"


def test_pictures_that_take_too_long_are_cancelled(service):
    with TestClient(create_api(service, patience_s=0.3), base_url="http://localhost") as client:
        answer = client.post("/v1/images", json=SMALL)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert service.store.queued(10) == []


def test_pictures_are_cancelled_if_the_client_goes_away(service):
    with serving(create_api(service)) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/images", json=SMALL, timeout=1)
        end = time.monotonic() + 10
        while service.store.queued(10):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_who_waits_for_pictures_holds_no_thread(service, worker):
    with serving(create_api(service)) as url:
        posts = [
            threading.Thread(target=lambda: httpx.post(f"{url}/v1/images", json=SMALL, timeout=60))
            for _ in range(8)
        ]
        for post in posts:
            post.start()
        end = time.monotonic() + 20
        while len(worker.queue()) < 8:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200
        worker.work()
        for post in posts:
            post.join(20)
            assert not post.is_alive()
