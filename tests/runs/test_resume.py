"""A render that is killed loses what it was at, and makes the same clips as one that is not."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
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
from tests.runs.conftest import DEFAULTS, GOOD_ROWS, Job, row, write_images, write_job

pytestmark = pytest.mark.ray

# Distilled clips come first, and these take a second each: the kill comes between two of them.
LONG_ROWS = [row(f"long{n}", pipeline="distilled", width=128, height=128, seed=n) for n in range(5)]
ROWS = [*LONG_ROWS, *GOOD_ROWS]
MARK = "RAYREEL_TEST_RUN"


@dataclass(frozen=True)
class Resumed:
    """A job that was killed and then run again: its ledger and files before, and what it said."""

    job: Job
    lines: list[str]
    files: dict[str, tuple[int, bytes]]
    said: Any


@pytest.fixture(scope="module")
def resumed(ray_cluster, tmp_path_factory):
    """Killed while one fused worker of its own cluster rendered; three workers do the rest."""
    folder = tmp_path_factory.mktemp("resumed")
    write_images(folder)
    job, run = write_job(folder, ROWS, workers={"batch_size": 1}), uuid4().hex
    rayreel = str(Path(sys.executable).with_name("rayreel"))
    command = [rayreel, "render", str(job.spec), "-o", str(job.output)]
    with subprocess.Popen(command, env={**os.environ, MARK: run}) as driver:
        _wait(lambda: len(job.lines) >= 2 or driver.poll() is not None, "two clips")
        driver.send_signal(signal.SIGKILL)
    _wait(lambda: not _processes(run), "the end of the workers")
    return Resumed(job, job.lines, job.files, job.render("--set", "workers.replicas=3"))


def test_a_killed_render_goes_on_to_the_end(resumed):
    assert 2 <= len(resumed.lines) < len(ROWS) - 1
    assert resumed.said.exit_code == 0
    left = len(ROWS) - 1 - len(resumed.lines)
    assert f"{len(ROWS) - 1} done, 0 failed ({left} in" in resumed.said.stdout
    results = resumed.job.results
    assert results.keys() == {asked["id"] for asked in ROWS}
    assert {result["status"] for result in results.values()} == {"done"}


def test_what_was_done_before_the_kill_is_left_alone(resumed):
    results, lines = resumed.job.results, resumed.job.lines
    assert {f"{item_id}.mp4" for item_id in resumed.lines} <= resumed.files.keys()
    assert Counter(lines) == Counter({result["item_id"] for result in results.values()})
    for name in (f"{item_id}.mp4" for item_id in resumed.lines):
        assert resumed.job.files[name] == resumed.files[name]


def test_a_third_run_has_nothing_left(resumed):
    third = resumed.job.render()
    assert third.exit_code == 0
    assert "nothing was left" in third.stdout


def test_three_fused_workers_make_the_clips_of_split_stages(resumed, rendered):
    split, _ = rendered
    three, one = resumed.job.results, split.results
    left = {result["item_id"] for result in three.values()} - set(resumed.lines)
    # How many of the three get any of the few rows is a race; that it is not one alone is not.
    assert len({resumed.job.entries[item_id].worker for item_id in left}) > 1
    names = [asked["id"] for asked in GOOD_ROWS]
    assert {name: three[name]["sha256"] for name in names} == {
        name: one[name]["sha256"] for name in names
    }


@pytest.mark.parametrize("name", ["long0", "fox", "storm"])
def test_a_request_alone_makes_the_clip_of_the_job(resumed, name):
    result = resumed.job.results[name]
    fields = ("prompt", "pipeline", "width", "height", "num_frames", "fps", "audio", "seed")
    request = RenderRequest(steps=DEFAULTS["steps"], **{field: result[field] for field in fields})
    ledger = ModelLedger("tiny", choose_device(StageSpec()))
    clip = pipeline_of(request)(ledger)(request)
    assert hashlib.sha256(clip.frames.numpy().data).hexdigest() == result["sha256"]


def _processes(run: str) -> list[str]:
    """Processes that have inherited the mark of a run, and are not only waiting to be reaped."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={run}".encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marked:
            found.append(process.name)
    return found


def _wait(done: Callable[[], object], what: str, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.1)
