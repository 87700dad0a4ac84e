"""How pools follow the work: the policy by itself, and against Serve's own over an hour.

The trace `arrivals.csv` has 180 jobs of four lengths: calm, a burst of short ones, 22 minutes with
none, a burst of long ones, calm. `made_arrivals` made it, with seed 1.
"""

import logging
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
from ray.experimental import internal_kv

from rayreel.config.jobs import StageSpec
from rayreel.config.serving import ScalingSpec
from rayreel.serving import board
from rayreel.serving.autoscaling import WorkPolicy, autoscaling_config
from rayreel.serving.load import Load, PoolLoad
from tests.serving.scaling_simulation import (
    Outcome,
    by_requests,
    by_work,
    made_arrivals,
    recorded,
    simulate,
)

log = logging.getLogger(__name__)

SETTINGS = {"target_wait_s": 30.0, "shrink_s": 120.0, "min_replicas": 1, "max_replicas": 8}


def policy(**settings) -> WorkPolicy:
    values = {"application": "app", "pool": "fused", "idle_s": None, **SETTINGS, **settings}
    return WorkPolicy(**values)


def load(waiting_s=0.0, running_s=0.0, jobs=100, idle_s=0.0) -> PoolLoad:
    return PoolLoad(replicas=1, waiting_s=waiting_s, running_s=running_s, jobs=jobs, idle_s=idle_s)


IDLE = load(jobs=0, idle_s=600.0)


class Pool:
    """A policy with what Serve keeps of it."""

    def __init__(self, policy, replicas=1):
        self.policy, self.replicas, self.memory = policy, replicas, {}

    def asked(self, load, now):
        self.replicas, self.memory = self.policy.decide(load, self.replicas, now, self.memory)
        return self.replicas


@pytest.mark.parametrize(
    ("told", "replicas"),
    [
        (load(), 1),
        (load(waiting_s=1.0), 1),
        (load(waiting_s=30.0), 1),
        (load(waiting_s=31.0), 2),
        (load(waiting_s=50.0, running_s=50.0), 4),
        (load(waiting_s=1e6), 8),
        (load(waiting_s=1e6, jobs=2), 2),
        (load(jobs=0), 1),
    ],
)
def test_each_actor_gets_as_much_work_as_a_job_may_wait(told, replicas):
    assert Pool(policy()).asked(told, 0.0) == replicas


def test_there_are_never_fewer_than_the_fewest():
    assert Pool(policy(min_replicas=3), replicas=3).asked(load(waiting_s=1.0), 0.0) == 3


def test_a_pool_grows_at_once_and_shrinks_after_a_time():
    pool = Pool(policy())
    assert pool.asked(load(waiting_s=150.0), 0.0) == 5
    assert pool.asked(load(waiting_s=80.0), 60.0) == 5
    assert pool.asked(load(waiting_s=20.0), 61.0) == 5
    assert pool.asked(load(waiting_s=20.0), 119.0) == 5
    assert pool.asked(load(waiting_s=20.0), 120.0) == 3
    assert pool.asked(load(waiting_s=20.0), 179.0) == 3
    assert pool.asked(load(waiting_s=20.0), 180.0) == 1


def test_work_in_between_keeps_actors():
    pool = Pool(policy())
    for now in range(0, 1000, 100):
        assert pool.asked(load(waiting_s=150.0), float(now)) == 5
        assert pool.asked(load(waiting_s=20.0), now + 1.0) == 5


def test_a_policy_that_starts_anew_keeps_what_is_there_at_first():
    pool = Pool(policy(), replicas=6)
    assert pool.asked(load(waiting_s=20.0), 1000.0) == 6
    assert pool.asked(load(waiting_s=20.0), 1119.0) == 6
    assert pool.asked(load(waiting_s=20.0), 1120.0) == 1


def test_an_idle_pool_has_no_actors_until_there_is_work():
    pool = Pool(policy(idle_s=300.0, min_replicas=2), replicas=2)
    assert pool.asked(load(jobs=0, idle_s=299.0), 0.0) == 2
    assert pool.asked(load(jobs=0, idle_s=300.0), 1.0) == 0
    # A dispatcher that was started again knows of no time before.
    assert pool.asked(load(jobs=0, idle_s=0.0), 2.0) == 0
    assert pool.asked(load(waiting_s=1.0, jobs=1), 3.0) == 2


def test_a_pool_is_kept_where_idling_is_not_limited():
    assert Pool(policy(min_replicas=2), replicas=2).asked(IDLE, 1e6) == 2


@pytest.mark.parametrize(
    ("stage", "idle_s", "bounds"),
    [
        (StageSpec(replicas=2, max_replicas=5), None, (2, 2, 5)),
        (StageSpec(replicas=2, max_replicas=5), 60.0, (0, 2, 5)),
        (StageSpec(replicas=2), 60.0, (0, 2, 2)),
    ],
)
def test_serve_keeps_within_the_limits_of_the_spec(stage, idle_s, bounds):
    config = autoscaling_config("fused", stage, ScalingSpec(idle_s=idle_s), "app")
    assert config is not None
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == bounds
    made = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert made.decide(load(waiting_s=1e6), 2, 0.0, {})[0] == bounds[2]


@pytest.mark.parametrize("most", [None, 2])
def test_a_pool_of_one_size_is_not_scaled(most):
    stage = StageSpec(replicas=2, max_replicas=most)
    assert autoscaling_config("fused", stage, ScalingSpec(), "app") is None


def test_serve_waits_no_longer_than_the_policy():
    config = autoscaling_config("fused", StageSpec(max_replicas=2), ScalingSpec(), "app")
    assert config is not None
    assert config.upscale_delay_s == config.downscale_delay_s == 0
    assert config.downscale_to_zero_delay_s == 0


def test_what_the_controller_imports_needs_no_torch():
    """It holds a policy by its source, and imports what that imports."""
    command = "import sys, rayreel.serving.autoscaling; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=120)


def context(target=1) -> Any:
    """What a policy reads of Serve's."""
    return SimpleNamespace(target_num_replicas=target, policy_state={"serve's own": 1})


@pytest.fixture
def told(monkeypatch):
    """A board and a clock: says what is told when, and what a policy makes of it."""

    def tell(policy, now, at, pools=None):
        monkeypatch.setattr(time, "monotonic", lambda: now)
        pools = {"fused": load(waiting_s=300.0)} if pools is None else pools
        found = None if at is None else Load(at=at, pools=pools)
        monkeypatch.setattr(board, "read", Mock(return_value=found))
        return policy(context())[0]

    return tell


def test_a_load_counts_once_a_dispatcher_tells_another(told):
    asked = policy()
    assert told(asked, 0.0, at=5.0) == 1
    assert told(asked, 2.0, at=5.0) == 1
    assert told(asked, 4.0, at=6.0) == 8


def test_a_load_that_grows_old_changes_nothing(told):
    asked = policy()
    told(asked, 0.0, at=5.0)
    assert told(asked, 2.0, at=6.0) == 8
    assert told(asked, 32.0, at=6.0) == 8
    assert told(asked, 33.0, at=6.0) == 1
    assert told(asked, 35.0, at=7.0) == 8


def test_nothing_told_and_other_pools_change_nothing(told):
    asked = policy()
    assert told(asked, 0.0, at=None) == 1
    told(asked, 2.0, at=5.0)
    assert told(asked, 4.0, at=6.0, pools={"decode": load(waiting_s=300.0)}) == 1


def test_what_serve_remembers_stays_where_nothing_is_told(monkeypatch):
    monkeypatch.setattr(board, "read", Mock(return_value=None))
    assert policy()(context(target=3)) == (3, {"serve's own": 1})


def test_the_board_is_asked_once_a_second(monkeypatch):
    read, often = Mock(return_value=None), policy()
    monkeypatch.setattr(board, "read", read)
    for tick in range(21):
        monkeypatch.setattr(time, "monotonic", lambda tick=tick: tick / 8)
        often(context())
    assert read.call_args_list == [call("app")] * 3


def test_without_ray_nothing_is_read(monkeypatch):
    monkeypatch.setattr(internal_kv, "global_gcs_client", None)
    assert board.read("app") is None


def test_the_stored_trace_is_what_the_script_makes():
    assert recorded() == made_arrivals(seed=1)


def test_less_waiting_with_fewer_actors_than_by_the_number_of_requests(monkeypatch):
    trace, limits = recorded(), {"min_replicas": 1, "max_replicas": 8}

    def over(scaler) -> Outcome:
        return simulate(trace, scaler, start_s=40.0)

    quick = {"upscale_delay_s": 0.0, "downscale_delay_s": 120.0}
    found = {
        "by work": over(by_work(idle_s=None, **SETTINGS)),
        "by work, idle 300 s": over(by_work(idle_s=300.0, **SETTINGS)),
        "Serve's defaults": over(by_requests(monkeypatch, **limits)),
        "Serve, our delays": over(by_requests(monkeypatch, **limits, **quick)),
        "Serve, our delays, one request each": over(
            by_requests(monkeypatch, target_ongoing_requests=1, **limits, **quick)
        ),
        "always 3": over(Mock(return_value=3)),
    }
    log.info("\n%s", "\n".join(map(_line, found, found.values())))
    serves = found["Serve's defaults"]
    for name in ("by work", "by work, idle 300 s"):
        assert found[name].p95_s < 0.6 * serves.p95_s
        assert found[name].mean_s < 0.7 * serves.mean_s
        assert found[name].actor_s < 0.7 * serves.actor_s
    assert found["by work, idle 300 s"].actor_s < found["by work"].actor_s


def _line(name: str, found: Outcome) -> str:
    waits = f"waits {found.mean_s:5.1f} s, p95 {found.p95_s:5.1f} s"
    return f"{name:36} {waits}, {found.actor_s / 3600:5.2f} actor hours"
