"""A long clip whose render is killed goes on with the chunk that it was at."""

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rayreel.config.jobs import StageSpec
from rayreel.config.request import RenderRequest
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.devices import choose_device
from rayreel.pipelines.ledger import ModelLedger
from tests.runs.conftest import Job, row, write_job
from tests.runs.test_resume import MARK, _processes, _wait

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Chunks that take long enough for the kill to come while the fourth one is made.
LONG = row(
    "long",
    pipeline="two_stage",
    seed=3,
    width=128,
    height=128,
    num_frames=161,
    steps=20,
    chain={"chunk_frames": 33, "overlap": 1},
)


@dataclass(frozen=True)
class Resumed:
    """A job that was killed and then run again: what it had left, and what it said."""

    job: Job
    lines: list[str]
    chunks: dict[str, tuple[int, bytes]]
    said: Any


def chunks_of(job: Job) -> dict[str, tuple[int, bytes]]:
    """Time and content of every chunk's file."""
    files = sorted((job.output / "latents").glob("*.safetensors"))
    return {file.stem[-4:]: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def resumed(ray_cluster, tmp_path_factory):
    """Killed, the driver's group and then its workers, when the third chunk was in the ledger."""
    job, run = write_job(tmp_path_factory.mktemp("chain"), [LONG]), uuid4().hex
    rayreel = str(Path(sys.executable).with_name("rayreel"))
    command = [rayreel, "render", str(job.spec), "-o", str(job.output)]
    environment = {**os.environ, MARK: run}
    with subprocess.Popen(command, env=environment, start_new_session=True) as driver:
        _wait(lambda: len(job.lines) >= 3 or driver.poll() is not None, "three chunks")
        os.killpg(driver.pid, signal.SIGKILL)
        # Ray's processes have groups of their own, and finish what they are at.
        for process in _processes(run):
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
    _wait(lambda: not _processes(run), "the end of the workers")
    return Resumed(job, job.lines, chunks_of(job), job.render())


def test_a_killed_chain_goes_on_to_the_end(resumed):
    assert 3 <= len(resumed.lines) < 5
    assert resumed.said.exit_code == 0
    assert resumed.job.results["long"]["status"] == "done"


def test_chunks_that_were_done_before_the_kill_are_left_alone(resumed):
    numbers = Counter(line[-4:] for line in resumed.job.lines if line[-5:-4] == "-")
    done = {line[-4:] for line in resumed.lines}
    assert {"0000", "0001", "0002"} <= done
    assert all(numbers[number] == 1 for number in done)
    after = chunks_of(resumed.job)
    assert sorted(after) == [f"{index:04d}" for index in range(5)]
    for number, file in resumed.chunks.items():
        assert after[number] == file


def test_the_clip_is_that_of_a_chain_that_nothing_stopped(resumed):
    result = resumed.job.results["long"]
    request = RenderRequest.model_validate({k: v for k, v in LONG.items() if k != "id"})
    ledger = ModelLedger("tiny", choose_device(StageSpec()))
    clip = pipeline_of(request)(ledger)(request)
    assert len(clip.frames) == 161
    assert hashlib.sha256(clip.frames.numpy().data).hexdigest() == result["sha256"]
