"""Files of requests, on their way into the service directory."""

import asyncio
import base64
import io
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.datastructures import UploadFile

from rayreel.config.serving import UploadSpec
from rayreel.data.storage import Storage
from rayreel.errors import StorageError
from rayreel.media.inspection import Inspected
from rayreel.serving.gate import FileGate, FileRefused
from rayreel.serving.gate.checker import Checker
from tests.media.samples import grey_levels, write_video
from tests.serving.gate.jobs import JOB_ID

PLACE = f"uploads/{JOB_ID}"


def png(side: int = 8, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def upload(data: bytes, name: str = "a.png") -> UploadFile:
    return UploadFile(io.BytesIO(data), filename=name)


@pytest.fixture
def gate(tmp_path):
    return FileGate(Storage(tmp_path / "service"), UploadSpec())


def place(
    gate: FileGate, body: Mapping[str, Any], parts: Mapping[str, UploadFile] | None = None
) -> dict[str, Any]:
    return asyncio.run(gate.place(JOB_ID, body, parts or {}))


def refusal(gate: FileGate, body: Mapping[str, Any], **parts: UploadFile) -> FileRefused:
    before = gate.storage.names(PLACE)
    with pytest.raises(FileRefused) as raised:
        place(gate, body, parts)
    assert gate.storage.names(PLACE) == before
    return raised.value


def an_image(path: str) -> dict[str, Any]:
    return {"images": [{"path": path}]}


def test_parts_and_data_are_stored_by_their_content(gate):
    images = [{"path": "upload://x"}, {"path": data_uri(png(9)), "frame": 8}]
    body = {"images": images, "seed": 1}
    placed = place(gate, body, {"x": upload(png(8), "../../etc/passwd.txt")})
    stored = [image["path"] for image in placed["images"]]
    assert sorted(stored) == [gate.storage.join(name) for name in gate.storage.names(PLACE)]
    assert Path(stored[0]).read_bytes() == png(8)
    assert Path(stored[1]).read_bytes() == png(9)
    assert all(path.endswith(".png") and "etc" not in path for path in stored)
    assert placed["seed"] == 1
    assert placed["images"][1]["frame"] == 8
    assert images[0] == {"path": "upload://x"}


def test_a_file_that_is_named_twice_is_stored_once(gate):
    uri = data_uri(png())
    placed = place(gate, {"images": [{"path": uri}, {"path": uri, "frame": 8}]})
    assert len({image["path"] for image in placed["images"]}) == 1


def test_videos_are_taken_where_videos_belong(gate, tmp_path):
    write_video(tmp_path / "a.mp4", grey_levels(9), codec="libx264", pix_fmt="yuv420p")
    data = (tmp_path / "a.mp4").read_bytes()
    body = {"extend": {"path": "upload://v"}, "references": [{"path": "upload://v"}]}
    placed = place(gate, body, {"v": upload(data)})
    assert placed["extend"]["path"].endswith(".mp4")
    assert "image" in refusal(gate, an_image("upload://v"), v=upload(data)).message
    soundless = refusal(gate, {"soundtrack": {"path": "upload://v"}}, v=upload(data))
    assert soundless.message == "expected a file with sound, and it has none"
    picture = refusal(gate, {"retake": {"path": "upload://p"}}, p=upload(png()))
    assert picture.message == "expected video, and the file is image"


FIELDS = [
    ("images.1.path", lambda path: {"images": [{}, {"path": path}]}),
    ("references.0.path", lambda path: {"references": [{"path": path}]}),
    ("references.0.mask", lambda path: {"references": [{"mask": path}]}),
    ("soundtrack.path", lambda path: {"soundtrack": {"path": path}}),
    ("retake.path", lambda path: {"retake": {"path": path}}),
    ("extend.path", lambda path: {"extend": {"path": path}}),
    ("extend.run", lambda path: {"extend": {"clip": "a", "run": path}}),
    ("extend.latents", lambda path: {"extend": {"clip": "a", "latents": path}}),
    ("loras.0.path", lambda path: {"loras": [{"path": path}]}),
]


@pytest.mark.parametrize(("field", "body"), FIELDS, ids=[field for field, _ in FIELDS])
@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../../jobs.sqlite", "a.png", "~/.ssh/id_rsa", "", "uploads/x/a.png"),
        *("file:///etc/passwd", "s3://bucket/a.png", "http://example.com/a.png", "ftp://h/a"),
        *("memory://a", "github://o:r@/a", "simplecache::http://h/a", "zip://a::https://h/b"),
        *("https://example.com/a.png", "https://localhost/a", "HTTPS://example.com/a"),
        *("upload://", "upload://other", "upload://../x", "data:,hello", "data:image/png,abc"),
        *("data:image/png;base64,????", "concat:a|b", "\\\\host\\share", "pipe:0"),
    ],
)
def test_no_other_path_is_taken_anywhere(gate, field, body, path):
    assert refusal(gate, body(path)).field == field


def test_adapters_of_the_library_and_finished_clips_are_left_as_they_are(gate):
    body = {"loras": [{"path": "style-1"}], "extend": {"clip": "video_1"}}
    assert place(gate, body) == body


@pytest.mark.parametrize(
    "body",
    [
        {"images": "a"},
        {"images": {"path": "/etc/passwd"}},
        {"images": [["/etc/passwd"], 1, None]},
        {"images": [{"path": ["/etc/passwd"]}, {"path": None}]},
        {"extend": [], "loras": {}, "retake": "x", "soundtrack": 1},
    ],
)
def test_what_is_no_request_is_left_to_those_who_check_requests(gate, body):
    assert place(gate, body) == body


def test_all_files_of_a_request_count_together(tmp_path):
    data = png(64, compress_level=0)
    gate = FileGate(Storage(tmp_path), UploadSpec(max_bytes=len(data) + 10))
    body = {"images": [{"path": "upload://x"}, {"path": "upload://y"}]}
    refused = refusal(gate, body, x=upload(data), y=upload(png(8)))
    assert (refused.field, refused.status) == ("images.1.path", 413)
    assert str(len(data) + 10) in refused.message
    assert refusal(gate, an_image(data_uri(data + bytes(20)))).status == 413


def test_many_files_are_too_many(gate):
    uris = [data_uri(png(1 + index)) for index in range(33)]

    class Trusting(Checker):
        async def check(self, _: Path) -> Inspected:
            return Inspected(kind="image")

    gate.checker = Trusting(gate.limits)
    refused = refusal(gate, {"images": [{"path": uri} for uri in uris]})
    assert (refused.field, refused.message) == ("images.32.path", "at most 32 files are taken")


def test_what_a_file_says_of_itself_counts_for_nothing(gate):
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    refused = refusal(gate, an_image(data_uri(playlist)))
    assert refused.message.startswith("the file begins with 23 45 58 54")
    assert place(gate, an_image(data_uri(png(), "text/html")))["images"][0]["path"].endswith(".png")


def test_message_names_the_limit_and_not_our_folders(tmp_path):
    gate = FileGate(Storage(tmp_path / "service"), UploadSpec(max_pixels=100))
    refused = refusal(gate, an_image(data_uri(png(11))))
    assert "11x11" in refused.message
    assert "at most 100" in refused.message
    damaged = refusal(gate, an_image(data_uri(png(4)[:-30])))
    assert str(tmp_path) not in damaged.message + refused.message
    assert "/tmp" not in damaged.message + refused.message


def test_file_that_takes_too_long_is_refused(tmp_path):
    gate = FileGate(Storage(tmp_path), UploadSpec(check_s=0.01))
    assert "longer than 0.01 s" in refusal(gate, an_image(data_uri(png()))).message


def test_file_that_wants_too_much_memory_is_refused(gate, monkeypatch):
    # Little is left beyond what the process has once its modules are there.
    tight = (
        "import resource, sys; from rayreel.media import inspection as i; import numpy\n"
        "def greedy(path, limits): return numpy.ones(2**34, numpy.uint8)\n"
        "i.inspect = greedy; i.main(*sys.argv[1:])"
    )
    real = subprocess.run

    def run(command, **options):
        return real([sys.executable, "-c", tight, *command[4:]], **options)

    monkeypatch.setattr(subprocess, "run", run)
    assert "more memory than is allowed" in refusal(gate, an_image(data_uri(png()))).message


def test_file_that_kills_its_decoder_is_refused(gate, monkeypatch):
    real = subprocess.run

    def run(_, **options):
        return real([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], **options)

    monkeypatch.setattr(subprocess, "run", run)
    assert "signal 11" in refusal(gate, an_image(data_uri(png()))).message


def test_a_process_that_cannot_start_is_no_fault_of_the_file(gate, monkeypatch, caplog):
    real = subprocess.run

    def run(_, **options):
        return real([sys.executable, "-c", "import not_there"], **options)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RuntimeError, match="ended with 1"):
        place(gate, an_image(data_uri(png())))
    assert "No module named" in caplog.text


def test_the_process_gets_no_secrets_of_the_service(gate, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    seen: dict[str, str] = {}
    real = subprocess.run

    def run(command, **options):
        seen.update(options["env"])
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    place(gate, an_image(data_uri(png())))
    assert "hidden" not in seen.values()
    assert set(seen) <= {
        *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH"),
        *("MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"),
    }


def test_looking_at_files_needs_neither_torch_nor_ray():
    code = (
        "import sys, rayreel.media.inspection\n"
        "print({'torch', 'ray', 'pydantic', 'rayreel.config'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_nothing_is_left_when_storing_fails(gate, monkeypatch):
    def full(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(gate, "_store", full)
    with pytest.raises(StorageError):
        place(gate, an_image(data_uri(png())))
    assert gate.storage.names(PLACE) == []


def test_all_of_a_job_is_removed_and_nothing_of_another(gate):
    other = "video_" + "b" * 32
    for job_id in (JOB_ID, other):
        asyncio.run(gate.place(job_id, an_image(data_uri(png())), {}))
        for name in (
            *(f"videos/{job_id}.mp4", f"extracts/{job_id}.webp", f"extracts/{job_id}.m4a"),
            *(f"latents/{job_id}-{index:04d}.safetensors" for index in range(3)),
        ):
            gate.storage.write_bytes(name, b"x")
    gate.remove(JOB_ID)
    left = [str(path) for path in Path(gate.storage.uri).rglob("*")]
    assert not any(JOB_ID in path for path in left)
    assert sum(other in path for path in left) == 8
    gate.remove(JOB_ID)


@pytest.mark.parametrize(
    "job_id", ["", "..", "video_", "../video_" + "a" * 32, "video_" + "A" * 32]
)
def test_only_ids_of_jobs_name_what_is_removed(gate, job_id):
    with pytest.raises(ValueError, match="no id of a job"):
        gate.remove(job_id)


def test_neither_files_nor_their_names_are_logged(gate, caplog):
    with caplog.at_level(logging.DEBUG):
        refusal(gate, an_image("upload://secret-name"), x=upload(png(), "secret-name.png"))
        place(gate, an_image(data_uri(png())))
    assert "secret-name" not in caplog.text
    assert "base64" not in caplog.text
