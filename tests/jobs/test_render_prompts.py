"""The documented ways to submit a job, to a cluster of its own."""

import subprocess

import pytest

from rayreel.media.container import probe
from tests.cluster.nodes import BIN, ENVIRONMENT, RAY, cluster
from tests.runs.conftest import row, write_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head():
    """Address of a head node that takes jobs."""
    with cluster(4) as nodes:
        yield nodes.dashboard


@pytest.fixture
def run(head, repository):
    def run(*command):
        return subprocess.run(
            list(map(str, command)),
            check=False,
            cwd=repository,
            env={**ENVIRONMENT, "RAY_API_SERVER_ADDRESS": head},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def with_ray(*arguments):
    """The command of Ray that submits the job file."""
    job = ("python", "jobs/render_prompts.py", *arguments)
    return (RAY, "job", "submit", "--working-dir", ".", "--", *job)


def test_a_submitted_job_renders_and_a_second_one_finds_nothing_left(run, tmp_path):
    job = write_job(tmp_path, [row("fox", seed=1), row("owl", seed=2)])
    first = run(*with_ray(job.spec, "--output", job.output))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 clips: 2 done, 0 failed" in first.stdout
    for result in job.results.values():
        assert probe(job.output / result["output"]).num_frames == 9
    again = run(BIN / "rayreel", "submit", job.spec, "-o", job.output)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing was left" in again.stdout
    attached = run(BIN / "rayreel", "attach", again.stdout.splitlines()[0])
    assert attached.returncode == 0
    assert "nothing was left" in attached.stdout


def test_a_submitted_job_with_a_faulty_row_fails_and_says_why(run, tmp_path):
    job = write_job(tmp_path, [row("fox", num_frames=12)])
    said = run(BIN / "rayreel", "submit", job.spec, "-o", job.output)
    assert said.returncode == 2
    assert "row 1: field 'num_frames': 12" in said.stdout + said.stderr
    assert not job.output.exists()
