"""What a client was told before a service is killed holds after it is started again."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayreel.serving.store import JobStore
from tests.cluster.nodes import wait
from tests.serving.demo_service import demo_service
from tests.serving.system.processes import free_port

SMALL = {"size": "128x128", "num_frames": 9}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg"
    "GAWjR9awAAAABJRU5ErkJggg=="
)
QUEUE = {"stale_s": 1, "attempts": 3}


@dataclass
class Story:
    """A service that was killed with jobs of all kinds, and what became of them in its next life.

    Attributes:
        folder: The service directory.
        ids: Of the jobs, by what they were at the kill.
        jobs: What is told of each after the restart, likewise.
        again: Id that was answered for the key of the job that waited, after the restart.
        uploads: Contents of uploaded files at the kill, by name.
    """

    folder: Path
    ids: dict[str, str]
    jobs: dict[str, dict[str, Any]]
    again: str
    uploads: dict[str, bytes]


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    folder = tmp_path_factory.mktemp("durable") / "service"
    waiting = {"prompt": "a heron", "input_reference": {"image_url": PIXEL}, **SMALL}
    with life(folder, step_s=30) as url:
        ids = {
            "runs": create(url, {"prompt": "a fox", **SMALL}),
            "stops": create(url, {"prompt": "an owl", "priority": "low", **SMALL}),
            "waits": create(url, waiting, key="the heron"),
        }
        wait(lambda: look(url, ids["runs"])["status"] == "in_progress", "work")
        cancelled = httpx.post(f"{url}/v1/videos/{ids['stops']}/cancel", timeout=30)
        assert cancelled.is_success
    uploads = files_of(folder)
    with life(folder, step_s=0) as url:
        again = create(url, waiting, key="the heron")
        ends = ("completed", "failed", "cancelled")
        wait(lambda: all(look(url, one)["status"] in ends for one in ids.values()), "all ends")
        jobs = {what: look(url, job_id) for what, job_id in ids.items()}
    return Story(folder, ids, jobs, again, uploads)


def test_a_job_that_ran_is_done_in_another_try(story):
    assert (story.jobs["runs"]["status"], story.jobs["runs"]["attempt"]) == ("completed", 2)


def test_a_job_that_waited_is_done_in_its_first_try_with_its_file(story):
    assert (story.jobs["waits"]["status"], story.jobs["waits"]["attempt"]) == ("completed", 1)
    assert [name for name in story.uploads if story.ids["waits"] in name]
    assert story.uploads == files_of(story.folder)


def test_a_job_that_was_cancelled_stays_so(story):
    assert story.jobs["stops"]["status"] == "cancelled"


def test_a_request_that_is_sent_again_with_its_key_is_the_same_job(story):
    assert story.again == story.ids["waits"]
    store = JobStore(f"sqlite:///{story.folder}/jobs.sqlite")
    page = store.list(owner="", limit=100, after=None, ascending=True)
    store.close()
    assert {job.job_id for job in page.jobs} == set(story.ids.values())


@contextmanager
def life(folder: Path, *, step_s: float) -> Iterator[str]:
    """A service in a process of its own, which is killed at the end; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.serving.demo_service"])
    process = context.Process(target=serve, args=(folder, port, step_s))
    process.start()
    try:
        wait(lambda: answers(url) or process.exitcode is not None, "a service")
        yield url
        assert process.exitcode is None
    finally:
        process.kill()
        process.join()


def serve(folder: Path, port: int, step_s: float) -> None:
    with demo_service(folder, port, step_s=step_s, queue=QUEUE):
        signal.pause()


def create(url: str, body: dict[str, Any], *, key: str | None = None) -> str:
    headers = {"Idempotency-Key": key} if key else {}
    answer = httpx.post(f"{url}/v1/videos", json=body, headers=headers, timeout=30)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def look(url: str, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/v1/videos/{job_id}", timeout=30).json()
    return found


def answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    return False


def files_of(folder: Path) -> dict[str, bytes]:
    """Uploaded files by name."""
    found = (folder / "uploads").rglob("*")
    return {str(file.relative_to(folder)): file.read_bytes() for file in found if file.is_file()}
