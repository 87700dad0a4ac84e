"""Actors of a service: their work has an end when nobody waits for it any more."""

import asyncio
import threading
from typing import Any

import pytest
import ray

from rayreel.serving.actors import _stop_without

pytestmark = pytest.mark.ray


@pytest.fixture
def caller(ray_cluster):
    actor: Any = ray.remote(num_cpus=0)(type("Caller", (), {})).remote()
    ray.get(actor.__ray_ready__.remote())
    yield actor
    ray.kill(actor)


def test_work_goes_on_while_whoever_asked_for_it_lives(caller):
    stop = threading.Event()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(_stop_without(caller, stop), 3))
    assert not stop.is_set()


def test_work_stops_once_whoever_asked_for_it_has_died(caller):
    stop = threading.Event()
    ray.kill(caller)
    asyncio.run(asyncio.wait_for(_stop_without(caller, stop), 30))
    assert stop.is_set()
