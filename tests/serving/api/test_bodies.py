"""What clients may send, and what they are told of what they may not."""

import json

import pytest

from tests.serving.api.test_videos import SMALL, data_uri, picture

FIELDS = {name: str(value) for name, value in SMALL.items()}
PNG = ("a.png", picture(), "image/png")


def refused(client, **request):
    answer = client.post("/v1/videos", **request)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"wdith": 64}, "wdith", "nearest is 'width'"),
        ({"images": [{"path": "x", "strngth": 1}]}, "images.0.strngth", "nearest is 'strength'"),
        ({"width": "wide"}, "width", "'wide'"),
        ({"prompt": " "}, "prompt", "blank"),
        ({"prompt": None}, "prompt", "string"),
        ({"num_frames": 10}, "num_frames", "9"),
        ({"width": 65}, "width", "64"),
        ({"size": "64"}, "size", "WIDTHxHEIGHT"),
        ({"tags": {"": "x"}}, "tags", "1 character"),
        ({"priority": "highest"}, "priority", "'high'"),
        ({"deadline_s": -1}, "deadline_s", "greater than 0"),
        ({"images": [{"path": "/etc/passwd"}]}, "images.0.path", "upload://NAME"),
        ({"images": [{"path": "s3://bucket/a.png"}]}, "images.0.path", "upload://NAME"),
        ({"extend": {"clip": "x", "run": "/"}}, "extend.clip", "finished clip"),
        ({"loras": [{"path": "/tmp/a.safetensors"}]}, "loras.0.path", "name of an adapter"),
        ({"loras": [{"path": "nothing"}]}, "loras.0.path", "no adapter"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
    ],
)
def test_a_fault_is_named_with_what_was_expected(client, fields, param, said):
    error = refused(client, json=SMALL | fields)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert said in error["message"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'"x"', b'{"prompt": NaN}', b'{"seed": 1e999}', b"[" * 5000, b"\xff"],
)
def test_what_is_no_json_object_is_refused(client, data):
    error = refused(client, content=data, headers={"Content-Type": "application/json"})
    assert error["code"] == "invalid_json"


def test_texts_that_no_database_holds_are_refused(client):
    headers = {"Content-Type": "application/json"}
    for text in ("a\0b", "\ud800"):
        error = refused(client, content=json.dumps({"prompt": text}), headers=headers)
        assert error["code"] == "invalid_text"


def test_other_types_of_bodies_are_named(client):
    answer = client.post("/v1/videos", data=FIELDS)
    assert answer.status_code == 415
    assert "application/x-www-form-urlencoded" in answer.json()["error"]["message"]


def test_a_form_says_simple_fields_and_a_first_frame(client, service):
    answer = client.post("/v1/videos", data=FIELDS, files={"input_reference": PNG})
    assert answer.status_code == 200, answer.text
    (image,) = service.store.get(answer.json()["id"]).request.images
    assert image.frame == 0
    assert service.storage.join("uploads") in image.path
    assert answer.json()["request"]["images"][0]["path"].startswith("uploads/video_")


def test_a_form_says_all_in_one_field_and_names_its_files(client, service):
    images = [{"path": "upload://a"}, {"path": "upload://b", "frame": 8}]
    fields = {"request": json.dumps(SMALL | {"images": images, "tags": {"k": "v"}})}
    answer = client.post("/v1/videos", data=fields, files={"a": PNG, "b": PNG})
    assert answer.status_code == 200, answer.text
    assert [one.frame for one in service.store.get(answer.json()["id"]).request.images] == [0, 8]


def test_inner_fields_are_said_in_brackets_as_openais_client_does(client):
    data = FIELDS | {"tags[shot]": "4", "input_reference[image_url]": data_uri()}
    twice = data | {"sigmas[]": ["1", "0.5", "0"]}
    answer = client.post("/v1/videos", data=twice, files={"image": PNG})
    assert answer.json()["error"]["param"] == "images.1.frame"
    form = {name: (None, value) for name, value in data.items()}
    answer = client.post("/v1/videos", files=form)
    assert answer.status_code == 200, answer.text
    assert answer.json()["tags"] == {"shot": "4"}
    assert len(answer.json()["request"]["images"]) == 1


def test_a_part_that_is_used_nowhere_is_named(client):
    error = refused(client, data=FIELDS, files={"picture": PNG})
    assert (error["param"], "upload://picture" in error["message"]) == ("picture", True)


def test_what_comes_twice_is_named(client):
    files = [("image", PNG), ("image", PNG)]
    assert refused(client, data=FIELDS, files=files)["param"] == "image"
    both = FIELDS | {"request": json.dumps({"prompt": "a dog"})}
    assert refused(client, data=both, files={"image": PNG})["param"] == "prompt"
    assert refused(client, data={**FIELDS, "seed": ["1", "2"]}, files={"image": PNG})["param"] == (
        "seed"
    )


def test_a_file_that_is_no_picture_is_refused_and_nothing_of_it_stays(client, service):
    files = {"input_reference": ("a.png", b"not a picture", "image/png")}
    error = refused(client, data=FIELDS, files=files)
    assert (error["code"], error["param"]) == ("invalid_file", "images.0.path")
    uploads = service.storage.local_path("uploads")
    assert not uploads.exists() or list(uploads.iterdir()) == []


def test_a_video_and_a_sound_go_where_they_belong(client, service, worker):
    movie = ("a.mp4", worker.clip.read_bytes(), "video/mp4")
    fields = FIELDS | {"width": "64", "height": "64"}
    answer = client.post("/v1/videos", data=fields, files={"audio": movie})
    assert answer.status_code == 200, answer.text
    assert answer.json()["request"]["soundtrack"]["path"].startswith("uploads/")
    longer = client.post("/v1/videos", data={"prompt": "on", "num_frames": "9"},
                         files={"video": movie})  # fmt: skip
    # The small clip is of no size that can be made longer; the file arrived where it belongs.
    assert longer.status_code == 200 or longer.json()["error"]["param"].startswith("extend")
