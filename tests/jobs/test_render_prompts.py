"""The documented way to submit a job, to a cluster of its own."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rayreel.media.container import probe
from tests.runs.conftest import row, write_job

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
RAY = str(BIN / "ray")
# Jobs run the ``python`` that the head node found on its path.
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def head():
    """Address of a head node that takes jobs."""
    ports = _free_ports(4)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    options = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    options += ["--num-cpus=4", "--object-store-memory=200000000", "--disable-usage-stats"]
    address = f"http://127.0.0.1:{ports[1]}"
    # Sockets lie in it, whose paths must be short.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [RAY, "start", "--head", "--block", f"--temp-dir={folder}", *options]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            _wait_for(address, process)
            yield address
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def submit(head, repository):
    def submit(*arguments):
        return subprocess.run(
            [
                *(RAY, "job", "submit", "--address", head, "--working-dir", ".", "--"),
                *("python", "jobs/render_prompts.py", *map(str, arguments)),
            ],
            check=False,
            cwd=repository,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return submit


def test_a_submitted_job_renders_and_a_second_one_finds_nothing_left(submit, tmp_path):
    job = write_job(tmp_path, [row("fox", seed=1), row("owl", seed=2)])
    first = submit(job.spec, "--output", job.output)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 clips: 2 done, 0 failed" in first.stdout
    for result in job.results.values():
        assert probe(job.output / result["output"]).num_frames == 9
    again = submit(job.spec, "--output", job.output)
    assert again.returncode == 0
    assert "nothing was left" in again.stdout


def test_a_submitted_job_with_a_faulty_row_fails_and_says_why(submit, tmp_path):
    job = write_job(tmp_path, [row("fox", num_frames=12)])
    said = submit(job.spec, "--output", job.output)
    assert said.returncode != 0
    assert "row 1: field 'num_frames': 12" in said.stdout + said.stderr
    assert not job.output.exists()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(address: str, process: subprocess.Popen[bytes], timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            assert process.poll() is None, "the head node ended"
            assert time.monotonic() < end, f"no answer from {address} within {timeout_s} s"
            time.sleep(0.5)
