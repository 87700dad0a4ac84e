"""A service that is asked to end."""

from pathlib import Path

import httpx
import pytest

from rayreel.serving.store import JobStore
from tests.cluster.nodes import wait
from tests.serving.system.processes import service

pytestmark = pytest.mark.slow

SPEC = {"model": "tiny", "placement": "split", "workers": {"cpus": 0.25}, "drain_s": 120}
# In the first of two stages for a while.
BODY = {"prompt": "A fox.", "width": 256, "height": 128, "num_frames": 25, "steps": 100}


def test_an_interrupted_command_ends_once_what_it_is_at_is_done(tmp_path: Path):
    with service(tmp_path, SPEC) as made:
        ids = [httpx.post(f"{made.url}/v1/videos", json=BODY).json()["id"] for _ in range(2)]
        urls = [f"{made.url}/v1/videos/{job_id}" for job_id in ids]
        wait(lambda: httpx.get(urls[0]).json()["step"], "work")
        wait(lambda: httpx.get(urls[1]).json()["status"] == "in_progress", "more of it")
        assert made.stop() == 0
        assert not made.processes()
    store = JobStore(f"sqlite:///{made.output}/jobs.sqlite")
    jobs = [store.get(job_id) for job_id in ids]
    store.close()
    assert [(job.state, job.attempt) for job in jobs if job] == [("done", 1)] * 2
