"""Jobs that come at the same time get their places one after the other."""

import asyncio
import threading
import time

import pytest

from rayreel.config.serving_api import JobFields
from rayreel.serving.api import submission
from rayreel.serving.api.submission import Asked, submit

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "num_frames": 9}


@pytest.fixture
def slow_first(service, monkeypatch):
    """The store takes its time for the first job; what it accepts, in order."""
    accepted, first = [], threading.Lock()
    store = type(service.store)
    real = store.submit

    def slowly(self, job, **limits):
        if first.acquire(blocking=False):
            time.sleep(0.5)
        result = real(self, job, **limits)
        accepted.append(result[0])
        return result

    monkeypatch.setattr(store, "submit", slowly)
    return accepted


async def ask(service, jobs: int) -> None:
    asked = Asked(owner="", fields=SMALL, job=JobFields())
    await asyncio.gather(*(submit(service, asked) for _ in range(jobs)))


def test_nobody_gets_a_place_before_one_that_was_told(service, slow_first):
    asyncio.run(ask(service, 5))
    assert len(slow_first) == 5
    assert [job.due for job in slow_first] == sorted(job.due for job in slow_first)


def test_one_that_waits_long_for_the_database_does_not_hold_up_the_others(
    service, slow_first, monkeypatch
):
    monkeypatch.setattr(submission, "_TURN_S", 0.01)
    asyncio.run(ask(service, 3))
    assert slow_first[-1].created_at == min(job.created_at for job in slow_first)
