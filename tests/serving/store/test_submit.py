"""Jobs come into the queue: what is kept of them, limits and idempotency keys."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rayreel.config.conditions import ImageCondition
from rayreel.config.request import RenderRequest
from rayreel.serving.store import JobStore, KeyReused, QueueFull
from tests.serving.store.jobs import (
    current,
    done,
    go,
    new_job,
    output_of,
    python,
    running,
    submitted,
)

SUBMIT = """
import sys
from contextlib import closing
from rayreel.serving.store import JobStore, QueueFull
from tests.serving.store.jobs import new_job

with closing(JobStore(sys.argv[1])) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        try:
            store.submit(new_job(f"{sys.argv[2]}_{number}"), max_jobs=25, max_jobs_per_owner=30)
        except QueueFull:
            continue
        print("accepted")
"""


def test_a_job_is_kept_as_it_was_handed_in(store: JobStore):
    new = new_job(
        "video_a",
        owner="key_1",
        request=RenderRequest(
            prompt="über 🪁", seed=2**62, images=(ImageCondition(path="uploads/a.png"),)
        ),
        asked={"prompt": "über 🪁", "seed": None, "sizes": [1, 2.5]},
        stage_s={"text": 0.1, "stage1": 2.5},
        due=1764263753.123456,
        created_at=1764263700.000001,
        deadline_at=1764263999.9,
        idempotency_key="again",
        digest="d1",
        tags={"shot": "3", "100%": 'a "quote"'},
        notes=("one", "two"),
    )
    job, is_new = store.submit(new, max_jobs=1, max_jobs_per_owner=1)
    assert is_new
    assert {name: getattr(job, name) for name in new.__slots__} == {
        name: getattr(new, name) for name in new.__slots__
    }
    assert (job.state, job.attempt, job.version, job.output) == ("queued", 1, 0, None)
    assert current(store, "video_a") == job


def test_characters_that_a_database_refuses_lose_no_job(store: JobStore):
    submitted(store, "video_a", prompt="a\0b", tags={"a\0": "\ud800"}, digest="\ud800\0")
    job = current(store, "video_a")
    assert job.request.prompt == "a\0b"
    assert job.tags == {"a\0": "\ud800"}
    assert store.get("video_\0") is None
    assert store.find_key("\ud800\0") is None


def test_no_more_jobs_wait_than_may(store: JobStore):
    submitted(store, "video_a", owner="one")
    running(store, "video_b", owner="one")
    with pytest.raises(QueueFull) as raised:
        store.submit(new_job("video_c", owner="two"), max_jobs=1, max_jobs_per_owner=1)
    assert (raised.value.limit, raised.value.queued, raised.value.owner) == (1, 1, False)
    assert store.get("video_c") is None


def test_no_more_jobs_of_an_owner_wait_than_may(store: JobStore):
    submitted(store, "video_a", owner="one")
    with pytest.raises(QueueFull, match="1 jobs of this API key wait, and 1 may") as raised:
        store.submit(new_job("video_b", owner="one"), max_jobs=2, max_jobs_per_owner=1)
    assert raised.value.owner
    store.submit(new_job("video_c", owner="two"), max_jobs=2, max_jobs_per_owner=1)


def test_threads_and_processes_together_keep_to_the_limit(store: JobStore, store_url: str):
    others = [python(SUBMIT, store_url, f"video_{name}") for name in "ab"]

    def submit(number: int) -> int:
        try:
            store.submit(new_job(f"video_c{number}"), max_jobs=25, max_jobs_per_owner=30)
        except QueueFull:
            return 0
        return 1

    with ThreadPoolExecutor(3) as threads:
        go(*others)
        mine = sum(threads.map(submit, range(12)))
    theirs = sum(output_of(process).count("accepted") for process in others)
    assert mine + theirs == store.totals().queued == 25


def test_the_same_idempotency_key_gives_the_earlier_job(store: JobStore):
    first = submitted(store, "video_a", idempotency_key="k", digest="d")
    again = new_job("video_b", idempotency_key="k", digest="d")
    assert store.submit(again, max_jobs=1, max_jobs_per_owner=1) == (first, False)
    assert store.get("video_b") is None


def test_an_idempotency_key_holds_after_the_job_is_done(store: JobStore):
    job = done(store, "video_a", idempotency_key="k", digest="d")
    again = new_job("video_b", idempotency_key="k", digest="d")
    assert store.submit(again, max_jobs=9, max_jobs_per_owner=9) == (job, False)


def test_an_idempotency_key_of_another_request_is_refused(store: JobStore):
    submitted(store, "video_a", idempotency_key="k", digest="d")
    other = new_job("video_b", idempotency_key="k", digest="e")
    with pytest.raises(KeyReused, match=r"'k' came with another request .* made video_a"):
        store.submit(other, max_jobs=9, max_jobs_per_owner=9)


def test_idempotency_keys_are_each_owner_s_own(store: JobStore):
    submitted(store, "video_a", owner="one", idempotency_key="k", digest="d")
    submitted(store, "video_b", owner="two", idempotency_key="k", digest="e")
    submitted(store, "video_c", owner="one")
    submitted(store, "video_d", owner="one")


def test_threads_that_repeat_a_key_get_one_job(store: JobStore):
    def submit(number: int) -> tuple[str, bool]:
        job = new_job(f"video_{number}", idempotency_key="k", digest="d")
        accepted, new = store.submit(job, max_jobs=9, max_jobs_per_owner=9)
        return accepted.job_id, new

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(submit, range(8)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
