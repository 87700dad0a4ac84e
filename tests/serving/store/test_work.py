"""What a dispatcher does with jobs, and what one that lost them cannot do any more."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy as sa

from rayreel.serving.store import Beats, JobStore, Totals
from rayreel.serving.store.tables import jobs
from tests.serving.store.jobs import OUTPUT, current, done, running, submitted


def test_a_job_is_taken_and_finished(store: JobStore):
    job = running(store, "video_a", "mine")
    assert (job.state, job.lease, job.started_at, job.attempt) == ("running", "mine", 10.0, 1)
    store.progress("mine", ["video_a"], stage="stage1", step=3, steps=8)
    job = current(store, "video_a")
    assert (job.stage, job.step, job.steps) == ("stage1", 3, 8)
    assert store.finish("mine", "video_a", OUTPUT, seconds={"text": 0.5}, now=20.0, expires_at=30.0)
    job = current(store, "video_a")
    assert (job.state, job.lease, job.output) == ("done", "", OUTPUT)
    assert (job.seconds, job.finished_at, job.expires_at) == ({"text": 0.5}, 20.0, 30.0)


def test_a_failed_job_says_why(store: JobStore):
    running(store, "video_a")
    assert store.fail(
        "mine",
        "video_a",
        error="media_error",
        message="no\0picture",
        seconds={"text": 1.0},
        now=20.0,
        expires_at=None,
    )
    job = current(store, "video_a")
    assert (job.state, job.error, job.message) == ("failed", "media_error", "no\ufffdpicture")
    assert (job.seconds, job.expires_at) == ({"text": 1.0}, None)


def test_only_jobs_that_wait_are_taken_in_the_order_of_the_queue(store: JobStore):
    for job_id, due in (("video_a", 3.0), ("video_b", 1.0), ("video_c", 2.0)):
        submitted(store, job_id, due=due)
    store.ask_cancel("video_c")
    taken = store.take(["video_a", "video_b", "video_c", "video_x"], "mine", 1.0)
    assert [job.job_id for job in taken] == ["video_b", "video_a"]
    assert store.take(["video_a"], "other", 2.0) == []
    assert store.take([], "mine", 2.0) == []


def test_a_lease_is_not_empty(store: JobStore):
    with pytest.raises(ValueError, match="an empty lease is none"):
        store.take([submitted(store, "video_a").job_id], "", 1.0)


def test_dispatchers_that_take_at_once_get_each_job_once(store: JobStore, store_url: str):
    names = [submitted(store, f"video_{number:02d}").job_id for number in range(24)]

    def take(lease: str) -> list[str]:
        with closing(JobStore(store_url)) as own:
            order = names if lease < "c" else names[::-1]
            got = [own.take(order[start : start + 6], lease, 1.0) for start in range(0, 24, 6)]
        return [job.job_id for jobs in got for job in jobs]

    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(take, "abcd"))
    assert sorted(name for names in got for name in names) == names
    assert {job.job_id: job.lease for job in store.running()} == {
        name: lease for lease, names in zip("abcd", got, strict=True) for name in names
    }


def test_threads_of_one_dispatcher_never_wait_for_each_other_for_good(store: JobStore):
    names = [running(store, f"video_{number}").job_id for number in range(6)]

    def write(turn: int) -> None:
        order = names if turn % 2 else names[::-1]
        store.progress("mine", order, stage="stage1", step=turn, steps=30)
        assert store.beat("mine", order[::-1]).lost == frozenset()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(24)))
    assert {current(store, name).beat for name in names} == {25}


def test_a_beat_tells_which_jobs_are_lost_and_which_are_to_stop(store: JobStore):
    for name in "abc":
        running(store, f"video_{name}")
    running(store, "video_d", "other")
    store.ask_cancel("video_b")
    store.release("mine", ["video_c"])
    before = current(store, "video_a").beat
    beats = store.beat("mine", [f"video_{name}" for name in "abcdx"])
    assert beats == Beats(
        lost=frozenset({"video_c", "video_d", "video_x"}), cancelling=frozenset({"video_b"})
    )
    assert current(store, "video_a").beat == before + 1


WRITES: dict[str, Callable[[JobStore], object]] = {
    "progress": lambda store: store.progress("old", ["video_a"], stage="x", step=1, steps=2),
    "beat": lambda store: store.beat("old", ["video_a"]),
    "wrote": lambda store: store.wrote("old", "video_a", "p", ("n",)),
    "finish": lambda store: store.finish(
        "old", "video_a", OUTPUT, seconds={}, now=1.0, expires_at=None
    ),
    "fail": lambda store: store.fail(
        "old", "video_a", error="e", message="m", seconds={}, now=1.0, expires_at=None
    ),
    "cancelled": lambda store: store.cancelled("old", "video_a", 1.0, None),
    "release": lambda store: store.release("old", ["video_a"]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_old_lease_changes_nothing(store: JobStore, write: Callable[[JobStore], object]):
    seen = running(store, "video_a", "old")
    assert store.take_over(seen, attempts=3, now=15.0)
    waiting = current(store, "video_a")
    assert write(store) in (
        None,
        False,
        0,
        Beats(lost=frozenset({"video_a"}), cancelling=frozenset()),
    )
    assert current(store, "video_a") == waiting
    (again,) = store.take(["video_a"], "new", 20.0)
    write(store)
    assert current(store, "video_a") == again
    assert store.finish("new", "video_a", OUTPUT, seconds={}, now=1.0, expires_at=None)
    ended = current(store, "video_a")
    write(store)
    assert current(store, "video_a") == ended


def test_a_job_without_a_sign_of_life_goes_back_to_the_queue(store: JobStore):
    submitted(store, "video_b", due=5.0)
    seen = running(store, "video_a", due=1.0)
    assert store.take_over(seen, attempts=3, now=15.0)
    job = current(store, "video_a")
    assert (job.state, job.attempt, job.alone, job.lease) == ("queued", 2, True, "")
    assert [job.job_id for job in store.queued(9)] == ["video_a", "video_b"]
    assert not store.take_over(seen, attempts=3, now=15.0)


def test_a_sign_of_life_keeps_a_job(store: JobStore):
    seen = running(store, "video_a")
    store.beat("mine", ["video_a"])
    assert not store.take_over(seen, attempts=3, now=15.0)
    assert current(store, "video_a").state == "running"


def test_a_sign_of_life_that_is_on_its_way_keeps_a_job(store: JobStore):
    seen = running(store, "video_a")
    with ThreadPoolExecutor(1) as thread:
        with store._database.writing() as connection:
            connection.execute(sa.update(jobs).values(beat=jobs.c.beat + 1))
            taken = thread.submit(store.take_over, seen, attempts=3, now=15.0)
            time.sleep(0.3)
            assert not taken.done()
        assert not taken.result()


def test_a_job_that_is_released_meanwhile_is_cancelled_in_the_queue(store: JobStore):
    running(store, "video_a")
    with ThreadPoolExecutor(1) as thread:
        with store._database.writing() as connection:
            connection.execute(sa.update(jobs).values(state="queued", lease=""))
            asked = thread.submit(store.ask_cancel, "video_a")
            time.sleep(0.3)
        job = asked.result()
    assert job is not None
    assert job.state == "cancelled"


def test_a_job_taken_again_is_another_try(store: JobStore):
    seen = running(store, "video_a")
    store.release("mine", ["video_a"], spent=False)
    store.take(["video_a"], "mine", 12.0)
    assert not store.take_over(seen, attempts=3, now=15.0)


def test_of_two_that_take_over_one_does(store: JobStore):
    seen = running(store, "video_a")
    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(lambda _: store.take_over(seen, attempts=3, now=15.0), range(4)))
    assert sum(won) == 1
    assert current(store, "video_a").attempt == 2


def test_a_job_whose_last_try_is_lost_fails(store: JobStore):
    running(store, "video_a")
    store.release("mine", ["video_a"])
    (seen,) = store.take(["video_a"], "mine", 11.0)
    assert store.take_over(seen, attempts=2, now=15.0)
    job = current(store, "video_a")
    assert (job.state, job.error, job.finished_at) == ("failed", "worker_lost", 15.0)
    assert "2 tries" in job.message


@pytest.mark.parametrize(("alone", "spent"), [(False, True), (True, False)])
def test_released_jobs_wait_again(store: JobStore, alone: bool, spent: bool):
    running(store, "video_a", due=1.0)
    running(store, "video_b", "other")
    store.progress("mine", ["video_a"], stage="stage1", step=3, steps=8)
    assert store.release("mine", ["video_a", "video_b"], alone=alone, spent=spent) == 1
    job = current(store, "video_a")
    assert (job.state, job.stage, job.step, job.steps) == ("queued", "", 0, 0)
    assert (job.alone, job.attempt) == (alone, 2 if spent else 1)


def test_a_job_that_is_to_be_alone_stays_so(store: JobStore):
    running(store, "video_a")
    store.release("mine", ["video_a"], alone=True)
    store.take(["video_a"], "mine", 11.0)
    store.release("mine", ["video_a"])
    assert current(store, "video_a").alone


def test_a_job_that_is_to_stop_does_not_wait_again(store: JobStore):
    running(store, "video_a")
    seen = running(store, "video_b")
    for name in ("video_a", "video_b"):
        store.ask_cancel(name)
    assert store.release("mine", ["video_a"]) == 0
    assert store.take_over(seen, attempts=3, now=15.0)
    assert {current(store, name).state for name in ("video_a", "video_b")} == {"cancelled"}


def test_a_written_prompt_and_new_notes_are_kept(store: JobStore):
    running(store, "video_a", notes=("one",))
    store.wrote("mine", "video_a", "a long prompt", ("one", "two"))
    job = current(store, "video_a")
    assert (job.written, job.notes) == ("a long prompt", ("one", "two"))
    assert job.request.prompt == "a red kite"


def test_totals_are_of_what_waits_and_runs(store: JobStore):
    assert store.totals() == Totals(
        queued=0, queued_s=0.0, running=0, running_s=0.0, oldest_created_at=None
    )
    submitted(store, "video_a", cost_s=2.0, created_at=7.0)
    submitted(store, "video_b", cost_s=3.5, created_at=6.0)
    running(store, "video_c", cost_s=11.0, created_at=1.0)
    done(store, "video_d", cost_s=50.0)
    assert store.totals() == Totals(
        queued=2, queued_s=5.5, running=1, running_s=11.0, oldest_created_at=6.0
    )


def test_jobs_past_their_deadline_are_overdue_until_they_end(store: JobStore):
    submitted(store, "video_a", deadline_at=5.0)
    running(store, "video_b", deadline_at=4.0)
    submitted(store, "video_c", deadline_at=50.0)
    submitted(store, "video_d")
    done(store, "video_e", deadline_at=5.0)
    assert [job.job_id for job in store.overdue(6.0)] == ["video_b", "video_a"]


def test_only_a_job_that_waits_past_its_deadline_fails_for_it(store: JobStore):
    submitted(store, "video_a", deadline_at=5.0)
    running(store, "video_b", deadline_at=5.0)
    assert not store.expire_queued("video_a", 4.0, None)
    assert not store.expire_queued("video_b", 6.0, None)
    assert store.expire_queued("video_a", 6.0, 99.0)
    job = current(store, "video_a")
    assert (job.state, job.error, job.expires_at) == ("failed", "deadline_exceeded", 99.0)


def test_finished_jobs_expire(store: JobStore):
    done(store, "video_a", expires_at=5.0)
    done(store, "video_b", expires_at=4.0)
    done(store, "video_c", expires_at=50.0)
    done(store, "video_d")
    assert [job.job_id for job in store.expired(6.0)] == ["video_b", "video_a"]
    assert [job.job_id for job in store.expired(6.0, limit=1)] == ["video_b"]


def test_jobs_that_end_in_the_queue_expire_as_others_do(store_url: str):
    with closing(JobStore(store_url, retention_s=100.0)) as store:
        submitted(store, "video_a")
        store.ask_cancel("video_a")
        lost = running(store, "video_b")
        store.take_over(lost, attempts=1, now=15.0)
        cancelled, failed = current(store, "video_a"), current(store, "video_b")
    assert cancelled.finished_at is not None
    assert cancelled.expires_at == cancelled.finished_at + 100.0
    assert failed.expires_at == 115.0
