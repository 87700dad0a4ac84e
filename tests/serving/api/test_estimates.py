"""How far jobs are said to be, and when they are said to be done."""

from dataclasses import replace

import pytest

from rayreel.config.request import RenderRequest
from rayreel.serving.api.estimates import eta_s, share_done
from rayreel.serving.jobs import Job, Place
from rayreel.serving.load import Load, PoolLoad

STAGES = {"text": 1.0, "stage1": 6.0, "stage2": 2.0, "decode": 1.0}
JOB = Job(
    job_id="video_1", owner="", kind="video", request=RenderRequest(prompt="x"), asked={},
    shape="", batch_key="", adapters="", cost_s=10.0, priority="normal", due=0.0,
    created_at=0.0, stage_s=STAGES,
)  # fmt: skip
NEXT = Place(ahead=0, ahead_s=0.0)


def load(**pools):
    idle = {"waiting_s": 0, "running_s": 0, "jobs": 0, "idle_s": 0}
    return Load(at=0, pools={name: PoolLoad(**idle | said) for name, said in pools.items()})


def running(stage, step=0, steps=0):
    return replace(JOB, state="running", stage=stage, step=step, steps=steps)


@pytest.mark.parametrize(
    ("job", "share"),
    [
        (JOB, 0.0),
        (running("text"), 0.0),
        (running("stage1", 4, 8), 0.4),
        (running("stage2", 3, 3), 0.9),
        (running("decode"), 0.9),
        (replace(JOB, state="done"), 1.0),
        (replace(running("decode"), stage_s={}), 0.0),
    ],
)
def test_progress_follows_what_stages_cost(job, share):
    assert share_done(job) == pytest.approx(share)


def test_progress_never_falls_as_a_job_goes_on():
    stages = [
        ("text", 0, 0),
        ("stage1", 0, 8),
        ("stage1", 8, 8),
        ("stage2", 0, 3),
        ("decode", 0, 0),
    ]
    shares = [share_done(running(*at)) for at in stages]
    assert shares == sorted(shares)


def test_who_is_next_takes_its_own_time_and_what_runs_before_it():
    assert eta_s(JOB, NEXT, load(fused={"replicas": 1})) == 10
    assert eta_s(JOB, NEXT, load(fused={"replicas": 1, "running_s": 4})) == 14
    assert eta_s(running("stage1", 4, 8), None, None) == pytest.approx(6)
    assert eta_s(replace(JOB, state="done"), None, None) is None


def test_work_ahead_is_shared_by_the_actors_of_a_pool():
    place = Place(ahead=3, ahead_s=30.0)
    assert eta_s(JOB, place, load(fused={"replicas": 1})) == 40
    assert eta_s(JOB, place, load(fused={"replicas": 3})) == 20
    assert eta_s(JOB, place, None) == 40


def test_of_a_row_of_pools_the_slowest_decides():
    place = Place(ahead=3, ahead_s=30.0)
    pools = {name: {"replicas": 1} for name in STAGES}
    assert eta_s(JOB, place, load(**pools)) == pytest.approx(10 + 30 * 0.6)
    pools["stage1"] = {"replicas": 6}
    assert eta_s(JOB, place, load(**pools)) == pytest.approx(10 + 30 * 0.2)


def test_actors_that_are_not_there_have_to_start_first():
    assert eta_s(JOB, NEXT, load(fused={"replicas": 0, "start_s": 25})) == 35
