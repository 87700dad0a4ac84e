"""What clients are told."""

from dataclasses import fields

import pytest

from rayreel.serving.dispatch.failures import failure_of, without_paths
from rayreel.serving.jobs import Job
from tests.serving.dispatch.fakes import failure, new_job


@pytest.fixture
def job():
    new = new_job()
    return Job(**{field.name: getattr(new, field.name) for field in fields(new)})


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        ("MediaError", "cat.png is no image", "invalid_media"),
        ("ItemError", "no speech in it", "invalid_request"),
        ("OutOfMemoryError", "CUDA: 3 GiB", "out_of_memory"),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory", "out_of_memory"),
        ("RetryableError", "no answer from http://10.0.0.1", "unavailable"),
        ("KeyError", "'secret'", "internal"),
    ],
)
def test_each_kind_of_failure_has_its_code(job, error, said, code):
    assert failure_of(failure(job.job_id, error, message=said), job).error == code


def test_unknown_errors_tell_the_id_of_the_job_and_nothing_else(job):
    told = failure_of(failure(job.job_id, "KeyError", message="'secret' of 10.0.0.1"), job)
    assert job.job_id in told.message
    assert "secret" not in told.message
    assert "10.0.0.1" not in told.message


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("/srv/rayreel/uploads/video_1/cat.png is no image", "cat.png is no image"),
        ("cannot read s3://bucket/uploads/cat.png: empty", "cannot read cat.png: empty"),
        ("uploads/video_1/cat.png has no frames", "cat.png has no frames"),
        ("'/my files/a cat.png' is no image", "'a cat.png' is no image"),
        ("(file:///srv/x.mp4), and/or 3/4", "(x.mp4), and/or 3/4"),
        ("two\n  lines", "two lines"),
    ],
)
def test_messages_do_not_tell_where_files_lie(message, short):
    assert without_paths(message) == short
