"""Who goes first, and with whom."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayreel.config.conditions import Chain
from rayreel.config.serving import QueueSpec
from rayreel.serving.dispatch.order import due, next_batch
from rayreel.serving.jobs import Job
from tests.serving.dispatch.fakes import new_job

QUEUE = QueueSpec(stretch=4.0, priority_s=600.0)


def queued(**changes):
    new = new_job(**changes)
    return Job(**{field.name: getattr(new, field.name) for field in fields(new)})


def line(*keys, created_at=0.0):
    """Jobs of these keys, in order."""
    return [
        queued(batch_key=key, created_at=created_at + i, due=float(i)) for i, key in enumerate(keys)
    ]


def chosen(jobs, *, batch_size=4, now=1000.0, free=1):
    return next_batch(jobs, batch_size=batch_size, now=now, batch_wait_s=0.1, free=free)


def test_a_short_job_passes_a_long_one_that_has_not_waited_for_long():
    long = due(0.0, 600.0, "normal", QUEUE)
    assert due(60.0, 2.0, "normal", QUEUE) < long < due(2500.0, 2.0, "normal", QUEUE)


def test_priority_is_worth_some_minutes_and_no_more():
    normal = due(1000.0, 10.0, "normal", QUEUE)
    assert due(1500.0, 10.0, "high", QUEUE) < normal < due(1700.0, 10.0, "high", QUEUE)
    assert due(300.0, 10.0, "low", QUEUE) < normal < due(500.0, 10.0, "low", QUEUE)


def test_a_batch_is_the_first_job_and_the_next_of_its_key():
    jobs = line("a", "b", "a", "a", "a", "a")
    assert chosen(jobs).batch == (jobs[0], jobs[2], jobs[3], jobs[4])


def test_a_job_that_lost_a_worker_has_its_batch_for_itself():
    first, *rest = line("a", "a", "a")
    assert chosen([replace(first, alone=True), *rest]).batch == (replace(first, alone=True),)
    assert chosen([first, replace(rest[0], alone=True), rest[1]]).batch == (first, rest[1])


def test_a_clip_of_several_chunks_has_its_batch_for_itself():
    jobs = line("a", "a")
    request = jobs[0].request.model_copy(update={"chain": Chain(chunk_frames=33)})
    chained = replace(jobs[0], request=request)
    assert chosen([chained, jobs[1]]).batch == (chained,)


def test_a_batch_waits_for_more_but_not_for_long():
    jobs = line("a", "a", created_at=1000.0)
    assert chosen(jobs, now=1000.04).batch == ()
    assert chosen(jobs, now=1000.04).wait_s == pytest.approx(0.06)
    assert len(chosen(jobs, now=1000.1).batch) == 2


def test_a_full_batch_goes_at_once():
    assert len(chosen(line("a", "a", created_at=1000.0), batch_size=2, now=1000.0).batch) == 2


def test_a_clock_that_is_ahead_keeps_nobody_waiting():
    assert len(chosen(line("a", created_at=5000.0), now=1000.0).batch) == 1


def test_a_full_batch_passes_one_that_waits_only_if_a_place_stays_free():
    jobs = line("a", "b", "b", created_at=1000.0)
    assert chosen(jobs, batch_size=2, now=1000.0, free=1).batch == ()
    assert chosen(jobs, batch_size=2, now=1000.0, free=2).batch == tuple(jobs[1:])


def test_nothing_goes_where_nothing_is_free_or_waits():
    assert chosen(line("a"), free=0).batch == ()
    assert chosen([]).wait_s is None


@given(
    keys=st.lists(st.sampled_from("abc"), max_size=20),
    ages=st.lists(st.floats(0, 0.3), min_size=20, max_size=20),
    alone=st.sets(st.integers(0, 19)),
    batch_size=st.integers(1, 4),
    free=st.integers(1, 3),
)
def test_batches_hold_like_jobs_and_take_them_in_order(keys, ages, alone, batch_size, free):
    jobs = [
        replace(job, alone=index in alone, created_at=1000.0 - age)
        for index, (job, age) in enumerate(zip(line(*keys), ages, strict=False))
    ]
    batch = chosen(jobs, batch_size=batch_size, free=free).batch
    assert len({job.batch_key for job in batch}) <= 1
    assert len(batch) <= (1 if any(job.alone for job in batch) else batch_size)
    if batch:
        like = [job for job in jobs if job.batch_key == batch[0].batch_key and not job.alone]
        assert batch[0].alone or list(batch) == like[: len(batch)]
        # Those that are passed wait for others, and keep a place each.
        passed = [
            job for job in jobs[: jobs.index(batch[0])] if job.batch_key != batch[0].batch_key
        ]
        assert all(1000.0 - job.created_at < 0.1 for job in passed)
        assert len({job.batch_key for job in passed}) < free


@given(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=30), size=st.integers(1, 4))
def test_the_queue_empties_from_its_head(keys, size):
    jobs, order = line(*keys), []
    while jobs:
        batch = chosen(jobs, batch_size=size).batch
        assert batch[0] == jobs[0]
        order += batch
        jobs = [job for job in jobs if job not in batch]
    for key in set(keys):
        times = [job.due for job in order if job.batch_key == key]
        assert times == sorted(times)


@given(
    cost_s=st.floats(0, 1e5),
    priority=st.sampled_from(["high", "normal", "low"]),
    other_s=st.floats(0, 1e5),
)
def test_nobody_starves(cost_s, priority, other_s):
    mine = due(0.0, cost_s, priority, QUEUE)
    # Whoever comes this much later is behind, whatever it is.
    latest = QUEUE.stretch * cost_s + 2 * QUEUE.priority_s + 1
    assert due(latest, other_s, "high", QUEUE) > mine
