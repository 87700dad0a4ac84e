"""When a job of another dispatcher is stale."""

from dataclasses import fields

from rayreel.serving.dispatch.leases import Watch
from rayreel.serving.jobs import Job
from tests.serving.dispatch.fakes import new_job


def running(beat, *, lease="theirs", job_id="video_1"):
    new = new_job(job_id=job_id)
    values = {field.name: getattr(new, field.name) for field in fields(new)}
    return Job(**values, state="running", lease=lease, beat=beat)


def test_a_job_is_stale_once_its_sign_is_old():
    watch = Watch(10.0)
    assert watch.stale([running(3)], (), 0.0) == []
    assert watch.stale([running(3)], (), 9.9) == []
    assert [job.job_id for job in watch.stale([running(3)], (), 10.0)] == ["video_1"]


def test_a_new_sign_or_lease_starts_again():
    watch = Watch(10.0)
    watch.stale([running(3)], (), 0.0)
    assert watch.stale([running(4)], (), 9.0) == []
    assert watch.stale([running(4, lease="others")], (), 18.0) == []
    assert watch.stale([running(4, lease="others")], (), 28.0) != []


def test_jobs_that_run_here_are_left_out():
    watch = Watch(10.0)
    watch.stale([running(3, lease="mine")], {"mine"}, 0.0)
    assert watch.stale([running(3, lease="mine")], {"mine"}, 99.0) == []


def test_time_without_a_store_does_not_count():
    watch = Watch(10.0)
    watch.stale([running(3)], (), 0.0)
    watch.forget()
    assert watch.stale([running(3)], (), 20.0) == []
