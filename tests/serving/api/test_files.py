"""Files of finished jobs, whole and in parts."""

import io

import pytest
from PIL import Image

from rayreel.media.audio import read_audio
from tests.serving.api.harness import LEASE, make_clip


@pytest.fixture
def video(make, worker):
    video_id = make()["id"]
    worker.work()
    return f"/v1/videos/{video_id}/content"


@pytest.fixture
def data(worker):
    return worker.clip.read_bytes()


def test_the_clip_comes_whole_with_its_type_and_tag(client, video, data):
    answer = client.get(video)
    assert answer.content == data
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, None),
        ("bytes=-50", -50, None),
        ("bytes=5-999999999", 5, None),
        ("bytes=-999999999", 0, None),
    ],
)
def test_a_range_is_answered_with_that_part(client, video, data, asked, first, last):
    answer = client.get(video, headers={"Range": asked})
    start = first % len(data)
    stop = len(data) if last is None else last + 1
    assert answer.status_code == 206
    assert answer.content == data[start:stop]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(data)}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(client, video, data, asked):
    answer = client.get(video, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(data)}"
    assert answer.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=9-1", "bytes=-", "lines=1-2", "x"])
def test_several_ranges_and_what_is_none_get_the_whole_file(client, video, data, asked):
    answer = client.get(video, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, data)


def test_a_running_job_shows_what_it_looks_like_so_far(client, make, service, worker):
    video_id = make()["id"]
    path = f"/v1/videos/{video_id}"
    (job,) = worker.take()
    answer = client.get(f"{path}/preview")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_preview")
    assert client.get(path).json()["preview"] == 0
    pictures = {video_id: b"RIFF1234WEBP"}
    service.store.progress(LEASE, [video_id], stage="stage1", step=1, steps=8, pictures=pictures)
    answer = client.get(f"{path}/preview")
    assert (answer.status_code, answer.content) == (200, b"RIFF1234WEBP")
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert client.get(path).json()["preview"] == 1
    worker.finish(job)
    assert client.get(f"{path}/preview").status_code == 404
    assert client.get(path).json()["preview"] == 0


def test_a_job_that_is_not_there_has_no_preview(client):
    answer = client.get("/v1/videos/video_" + "0" * 32 + "/preview")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_head_tells_of_the_file_without_it(client, video, data):
    answer = client.head(video, headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (206, b"")
    assert answer.headers["Content-Length"] == "10"
    assert client.head(video).headers["Content-Length"] == str(len(data))


def test_who_has_it_is_not_sent_it_again(client, video, data):
    tag = client.get(video).headers["ETag"]
    for said in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client.get(video, headers={"If-None-Match": said})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get(video, headers={"If-None-Match": '"x"'}).content == data


def test_a_part_of_another_version_is_not_mixed_with_this_one(client, video, data):
    tag = client.get(video).headers["ETag"]
    part = {"Range": "bytes=0-9"}
    assert client.get(video, headers=part | {"If-Range": tag}).status_code == 206
    assert client.get(video, headers=part | {"If-Range": '"x"'}).content == data


def test_a_thumbnail_is_a_small_webp_of_the_first_frame(client, video):
    for _ in range(2):
        answer = client.get(video, params={"variant": "thumbnail"})
        assert answer.headers["Content-Type"] == "image/webp"
        assert Image.open(io.BytesIO(answer.content)).size == (64, 32)


def test_the_sound_is_taken_out_as_it_was_encoded(client, video, tmp_path, worker):
    answer = client.get(video, params={"variant": "audio"})
    assert answer.headers["Content-Type"] == "audio/mp4"
    (tmp_path / "sound.m4a").write_bytes(answer.content)
    sound, whole = read_audio(tmp_path / "sound.m4a"), read_audio(worker.clip)
    assert sound is not None
    assert whole is not None
    assert sound.waveform.equal(whole.waveform)


def test_each_variant_has_a_tag_of_its_own(client, video):
    variants = ("video", "thumbnail", "audio")
    tags = [client.head(video, params={"variant": one}).headers["ETag"] for one in variants]
    assert len({*tags}) == 3


def test_a_silent_clip_has_no_sound(client, make, worker, tmp_path):
    worker.clip = make_clip(tmp_path, sound=False)
    video_id = make()["id"]
    worker.work()
    answer = client.get(f"/v1/videos/{video_id}/content?variant=audio")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_sound")


def test_a_job_without_a_file_says_so(client, make):
    answer = client.get(f"/v1/videos/{make()['id']}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_completed")


@pytest.mark.parametrize("variant", ["video", "thumbnail", "audio"])
def test_a_file_that_was_removed_is_said_to_be(client, video, service, variant):
    for path in service.storage.local_path("videos").iterdir():
        path.unlink()
    answer = client.get(video, params={"variant": variant})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "content_gone")


def test_an_unknown_variant_is_answered_with_the_known(client, video):
    answer = client.get(video, params={"variant": "spritesheet"})
    assert answer.status_code == 400
    assert "'thumbnail'" in answer.json()["error"]["message"]


def test_no_path_of_a_job_leaves_the_service_directory(client):
    for name in ("..%2F..%2Fetc%2Fpasswd", "video_x", "%00"):
        assert client.get(f"/v1/videos/{name}/content").status_code == 404
