"""Jobs over HTTP: their lists, their ends and their makings."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from rayreel.checkpoints.library import add_adapter, library_folder
from rayreel.serving.api import create_api
from tests.serving.api.harness import LEASE, make_service, tiny

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "num_frames": 9}


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "PNG")
    return data.getvalue()


def data_uri() -> str:
    return f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


def test_a_job_is_shown_as_openai_shows_it(make):
    video = make(seed=7, tags={"shot": "3"})
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)
    assert (video["size"], video["seconds"], video["seed"]) == ("64x64", "0.375", 7)
    assert (video["model"], video["position"], video["error"]) == ("rayreel", 0, None)
    assert video["tags"] == {"shot": "3"}
    assert video["eta_s"] > 0


def test_what_was_asked_is_kept_as_it_was_asked(make):
    asked = make(seed=3, priority="high", tags={"a": "b"})["request"]
    assert asked == SMALL | {"seed": 3, "priority": "high", "tags": {"a": "b"}}


def test_size_and_seconds_are_openais_words_for_the_same(make, client):
    answer = client.post(
        "/v1/videos", json={"prompt": "x", "size": "128x64", "seconds": "1", "model": "rayreel"}
    )
    assert (answer.json()["width"], answer.json()["num_frames"]) == (128, 25)


def test_jobs_that_wait_have_positions(make, client):
    first, second = make()["id"], make()
    assert second["position"] == 1
    assert [
        client.get(f"/v1/videos/{one}").json()["position"] for one in (first, second["id"])
    ] == [
        0,
        1,
    ]


def test_a_running_job_tells_how_far_it_is(make, client, service, worker):
    video_id = make()["id"]
    worker.take()
    service.store.progress("the-test", [video_id], stage="stage1", step=4, steps=8)
    video = client.get(f"/v1/videos/{video_id}").json()
    assert (video["status"], video["stage"], video["step"]) == ("in_progress", "stage1", 4)
    assert 0 < video["progress"] < 100
    assert video["position"] is None


def test_a_failed_job_says_why(make, client, worker):
    video_id = make()["id"]
    worker.fail(*worker.take(), error="worker_lost", message="gone three times")
    video = client.get(f"/v1/videos/{video_id}").json()
    assert video["status"] == "failed"
    assert video["error"] == {"code": "worker_lost", "message": "gone three times"}


def test_pages_of_a_list_meet_without_a_gap(make, client):
    ids = [make(seed=seed)["id"] for seed in range(5)]
    first = client.get("/v1/videos?limit=2").json()
    second = client.get(f"/v1/videos?limit=10&after={first['last_id']}").json()
    assert [one["id"] for one in (*first["data"], *second["data"])] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert client.get("/v1/videos?order=asc&limit=1").json()["data"][0]["id"] == ids[0]


def test_lists_are_searched_by_status_text_and_tag(make, client, worker):
    done = make(prompt="a dog on a roof", tags={"shot": "1:a"})["id"]
    worker.work()
    make()
    for query in ("status=completed", "q=ON A", "tag=shot:1:a", "status=failed&status=completed"):
        assert [one["id"] for one in client.get(f"/v1/videos?{query}").json()["data"]] == [done]
    assert client.get("/v1/videos?tag=shot:2").json()["data"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "after=x", "order=up", "status=done", "tag=shot", "q=%00"]
)
def test_a_faulty_query_is_named(client, query):
    answer = client.get(f"/v1/videos?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in (query.partition("=")[0], None)


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_told(make, client, worker):
    first = make()["id"]
    worker.take()
    second = make()["id"]
    assert client.post(f"/v1/videos/{second}/cancel").json()["status"] == "cancelled"
    running = client.post(f"/v1/videos/{first}/cancel").json()
    assert (running["status"], running["cancelling"]) == ("in_progress", True)
    assert worker.told == ["wake", "wake", f"cancel {first}"]


def test_only_a_finished_job_is_deleted_with_its_files(make, client, worker, service):
    video_id = make(images=[{"path": data_uri()}])["id"]
    assert client.delete(f"/v1/videos/{video_id}").status_code == 409
    worker.work()
    assert client.get(f"/v1/videos/{video_id}/content?variant=thumbnail").status_code == 200
    answer = client.delete(f"/v1/videos/{video_id}").json()
    assert answer == {"id": video_id, "object": "video.deleted", "deleted": True}
    assert client.get(f"/v1/videos/{video_id}").status_code == 404
    assert list(service.storage.local_path("x").parent.rglob(f"*{video_id}*")) == []


def test_a_repeated_key_returns_the_first_job(client, service):
    headers = {"Idempotency-Key": "once"}
    answers = [client.post("/v1/videos", json=SMALL, headers=headers) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    other = client.post("/v1/videos", json=SMALL | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"


def test_a_repeated_key_with_files_leaves_the_files_of_one_job(client, service):
    files = {"input_reference": ("a.png", picture(), "image/png")}
    fields = {name: str(value) for name, value in SMALL.items()}
    for _ in range(2):
        answer = client.post(
            "/v1/videos", data=fields, files=files, headers={"Idempotency-Key": "k"}
        )
        assert answer.status_code == 200, answer.text
    uploads = service.storage.local_path("uploads")
    assert [path.name for path in uploads.iterdir()] == [answer.json()["id"]]


def test_a_key_that_cannot_be_is_refused(client):
    for key in ("", "x" * 256, "é"):
        answer = client.post(
            "/v1/videos", json=SMALL, headers={"Idempotency-Key": key.encode("latin-1")}
        )
        assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_a_full_queue_says_when_to_come_again(make, client):
    for seed in range(8):
        make(seed=seed)
    answer = client.post("/v1/videos", json=SMALL)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_remix_has_another_prompt_and_files_of_its_own(make, client, worker, service):
    source = make(images=[{"path": data_uri(), "strength": 0.5}], tags={"a": "b"})
    worker.work()
    remix = client.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "a dog"}).json()
    assert (remix["prompt"], remix["seed"]) == ("a dog", source["seed"])
    assert (remix["remixed_from_video_id"], remix["tags"]) == (source["id"], {"a": "b"})
    assert client.delete(f"/v1/videos/{source['id']}").status_code == 200
    (image,) = service.store.get(remix["id"]).request.images
    assert remix["id"] in image.path
    assert service.storage.exists(remix["request"]["images"][0]["path"])
    again = client.post(f"/v1/videos/{remix['id']}/remix", json={"prompt": "a cow"}).json()
    assert again["remixed_from_video_id"] == remix["id"]


def test_a_clip_is_gone_on_from_by_its_id(make, client, worker):
    source = make(seed=1)["id"]
    body = {"prompt": "on", "num_frames": 9, "extend": {"clip": source}}
    early = client.post("/v1/videos", json=body)
    assert (early.status_code, early.json()["error"]["param"]) == (400, "extend.clip")
    for clip in ("nothing", "video_" + "0" * 32):
        answer = client.post("/v1/videos", json=body | {"extend": {"clip": clip}})
        assert answer.json()["error"]["param"] == "extend.clip"


def test_an_unknown_model_is_not_found_and_known_ones_are_named(client):
    answer = client.post("/v1/videos", json=SMALL | {"model": "sora-2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "known: rayreel" in answer.json()["error"]["message"]


def test_an_unknown_adapter_is_answered_with_the_nearest(client):
    library_folder().mkdir(parents=True)
    (library_folder() / "watercolour.safetensors").write_bytes(b"")
    answer = client.post("/v1/videos", json=SMALL | {"lora": "watercolor"})
    assert answer.json()["error"]["param"] == "lora"
    assert "nearest is 'watercolour'" in answer.json()["error"]["message"]


def test_an_adapter_can_be_asked_for_as_a_model(client, worker):
    adapter = tiny().spec.distilled_lora
    assert adapter is not None
    add_adapter("style", Path(adapter.path))
    video = client.post("/v1/videos", json=SMALL | {"model": "style"}).json()
    assert (video["model"], video["request"]["loras"]) == (
        "style",
        [{"path": "style", "strength": 1.0}],
    )
    worker.work()
    remix = client.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "a dog"}).json()
    assert (remix["model"], len(remix["request"]["loras"])) == ("style", 1)
    models = client.get("/v1/models").json()["data"]
    assert [(one["id"], one["parent"]) for one in models] == [
        ("rayreel", None),
        ("style", "rayreel"),
    ]
    usual = client.post("/v1/videos", json={"prompt": "a cat"}).json()
    assert [models[0][field] for field in ("size", "seconds")] == [
        usual["size"],
        round(float(usual["seconds"]), 2),
    ]


def test_with_keys_each_owner_sees_its_own_jobs_alone(tmp_path, clip):
    service, worker = make_service(tmp_path, clip, keys=True)
    secrets = [service.store.add_key(name)[1] for name in ("ann", "bob")]
    ann, bob = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
    with TestClient(create_api(service)) as client:
        video = client.post("/v1/videos", json=SMALL, headers=ann).json()
        path = f"/v1/videos/{video['id']}"
        (job,) = worker.take()
        made = {job.job_id: b"RIFF"}
        service.store.progress(LEASE, [job.job_id], stage="x", step=1, steps=8, pictures=made)
        token = {"token": video["token"]}
        assert client.get(f"{path}/preview", headers=bob).status_code == 404
        assert client.get(f"{path}/preview").status_code == 401
        for ours in ({"headers": ann}, {"params": token}):
            assert client.get(f"{path}/preview", **ours).content == b"RIFF"
        worker.finish(job)
        for ending in ("", "/content", "/events"):
            assert client.get(path + ending, headers=bob).status_code == 404
            assert client.get(path + ending).status_code == 401
            assert client.get(path + ending, headers=ann).status_code == 200
        for ending in ("/cancel", "/remix"):
            answer = client.post(path + ending, json={"prompt": "x"}, headers=bob)
            assert answer.status_code == 404
        assert client.delete(path, headers=bob).status_code == 404
        assert client.get("/v1/videos", headers=bob).json()["data"] == []
        assert client.get(f"/v1/videos?after={video['id']}", headers=bob).status_code == 400
        extend = {"prompt": "x", "num_frames": 9, "extend": {"clip": video["id"]}}
        assert client.post("/v1/videos", json=extend, headers=bob).status_code == 400
        assert client.get(f"{path}/content", params=token).status_code == 200
        assert client.get(f"{path}/content", params={"token": "1.x"}).status_code == 404
    service.store.close()
