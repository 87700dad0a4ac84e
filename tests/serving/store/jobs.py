"""Jobs for tests of the store, and what they go through."""

import subprocess
import sys
from typing import Any

from rayreel.config.request import RenderRequest
from rayreel.serving.jobs import Job, NewJob, Output
from rayreel.serving.store import JobStore

OUTPUT = Output(path="videos/video_a.mp4", sha256="ab" * 32, num_bytes=12)


def new_job(job_id: str, *, prompt: str = "a red kite", **fields: Any) -> NewJob:
    """A job of one second that came at time 0."""
    values: dict[str, Any] = {
        "owner": "",
        "kind": "video",
        "request": RenderRequest(prompt=prompt, seed=7),
        "asked": {"prompt": prompt},
        "shape": "768x512x121",
        "batch_key": "one",
        "adapters": "",
        "cost_s": 1.0,
        "priority": "normal",
        "due": 0.0,
        "created_at": 0.0,
    }
    return NewJob(job_id=job_id, **{**values, **fields})


def submitted(store: JobStore, job_id: str, **fields: Any) -> Job:
    """A job that waits."""
    job, new = store.submit(new_job(job_id, **fields), max_jobs=1000, max_jobs_per_owner=1000)
    assert new
    return job


def running(store: JobStore, job_id: str, lease: str = "mine", **fields: Any) -> Job:
    """A job that runs."""
    submitted(store, job_id, **fields)
    (job,) = store.take([job_id], lease, 10.0)
    return job


def done(store: JobStore, job_id: str, *, expires_at: float | None = None, **fields: Any) -> Job:
    """A job that is done."""
    running(store, job_id, "its", **fields)
    assert store.finish("its", job_id, OUTPUT, seconds={}, now=20.0, expires_at=expires_at)
    return current(store, job_id)


def current(store: JobStore, job_id: str) -> Job:
    """A job as it stands."""
    job = store.get(job_id)
    assert job is not None
    return job


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, with pipes; ``go`` lets code that waits for it begin."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(*processes: subprocess.Popen[str]) -> None:
    """Send processes, once all say that they are ready, the line that they wait for."""
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def output_of(process: subprocess.Popen[str]) -> str:
    """What a process said that has to end well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out
