"""One pool of a service under a trace of arrivals: a queue, actors that start slowly, a scaler."""

import csv
import heapq
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simpy
from ray.serve import autoscaling_policy
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from rayreel.serving.autoscaling import WorkPolicy
from rayreel.serving.load import PoolLoad

TRACE = Path(__file__).with_name("arrivals.csv")

TICK_S = 1.0
STRETCH = 4.0

# Seconds of an image, a short clip, a clip and a long one.
COSTS = {"image": 2.0, "short": 12.0, "clip": 40.0, "long": 180.0}
# Minutes, jobs per minute, and how many of each shape: an hour with a calm start, a burst of short
# ones, a quiet part of 22 minutes, a burst of long ones, and a calm end.
PARTS = (
    (10, 2.0, (5, 4, 2, 0)),
    (4, 25.0, (8, 3, 1, 0)),
    (6, 2.0, (5, 4, 2, 0)),
    (22, 0.0, (1, 0, 0, 0)),
    (4, 6.0, (1, 2, 4, 2)),
    (14, 2.0, (5, 4, 2, 1)),
)


@dataclass(frozen=True, order=True)
class Arrival:
    """A job as it comes."""

    at_s: float
    shape: str
    cost_s: float


def made_arrivals(seed: int = 1) -> list[Arrival]:
    """What the stored trace was made by: Poisson arrivals, and costs that vary by a tenth."""
    source, found, start = random.Random(seed), [], 0.0
    for minutes, rate, weights in PARTS:
        now, end = start, start + 60.0 * minutes
        while rate and (now := now + source.expovariate(rate / 60.0)) < end:
            (shape,) = source.choices(list(COSTS), weights)
            cost = COSTS[shape] * source.uniform(0.9, 1.1)
            found.append(Arrival(round(now, 1), shape, round(cost, 1)))
        start = end
    return found


def recorded() -> list[Arrival]:
    """The stored trace."""
    with TRACE.open(newline="") as file:
        return [
            Arrival(float(row["at_s"]), row["shape"], float(row["cost_s"]))
            for row in csv.DictReader(file)
        ]


@dataclass
class Actor:
    """One of the pool."""

    since: float
    ready: bool = False
    busy_until: float | None = None
    stopping: bool = False
    until: float | None = None


@dataclass
class View:
    """What a scaler may look at."""

    now: float
    target: int
    ready: int
    waiting: list[float]
    running: list[float]
    idle_s: float


Scaler = Callable[[View], int]
Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Outcome:
    """What became of a trace."""

    waits: list[float]
    actor_s: float

    @property
    def mean_s(self) -> float:
        return sum(self.waits) / len(self.waits)

    @property
    def p95_s(self) -> float:
        return sorted(self.waits)[int(0.95 * len(self.waits))]


def by_work(**settings: Any) -> Scaler:
    """Our policy; it is told all that waits and runs, in seconds."""
    policy = WorkPolicy(application="app", pool="fused", **settings)
    memory: dict[str, Any] = {}

    def scaler(view: View) -> int:
        nonlocal memory
        load = PoolLoad(
            replicas=view.ready,
            waiting_s=sum(view.waiting),
            running_s=sum(view.running),
            jobs=len(view.waiting) + len(view.running),
            idle_s=view.idle_s,
        )
        wanted, memory = policy.decide(load, view.target, view.now, memory)
        return wanted

    return scaler


@dataclass
class Clock:
    """What Serve's policy takes for the module of the time."""

    now: float = 0.0

    def time(self) -> float:
        return self.now


def by_requests(monkeypatch: Any, **settings: Any) -> Scaler:
    """Ray Serve's own policy, with all that Serve does around it; it is told their number."""
    config = AutoscalingConfig(**settings)
    policy = autoscaling_policy._apply_autoscaling_config(
        autoscaling_policy.replica_queue_length_autoscaling_policy
    )
    clock = Clock()
    monkeypatch.setattr(autoscaling_policy, "time", clock)
    recent: deque[int] = deque(maxlen=int(config.look_back_period_s / TICK_S))
    state: dict[str, Any] = {}

    def scaler(view: View) -> int:
        nonlocal state
        clock.now = view.now
        recent.append(len(view.waiting) + len(view.running))
        context = AutoscalingContext(
            deployment_id=DeploymentID("fused"),
            deployment_name="fused",
            app_name="app",
            current_num_replicas=view.ready,
            target_num_replicas=view.target,
            running_replicas=[],
            total_num_requests=sum(recent) / len(recent),
            total_queued_requests=None,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=config.min_replicas,
            capacity_adjusted_max_replicas=config.max_replicas,
            policy_state=state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=view.now,
            config=config,
        )
        wanted, state = policy(context)
        return min(max(wanted, config.min_replicas), config.max_replicas)

    return scaler


class Service:
    """A queue, where short jobs pass long ones as in the real one, and the pool behind it."""

    def __init__(self, arrivals: Sequence[Arrival], scaler: Scaler, start_s: float) -> None:
        self.world = simpy.Environment()
        self.arrivals = arrivals
        self.scaler = scaler
        self.start_s = start_s
        self.queue: list[tuple[float, int, Arrival]] = []
        self.pool: list[Actor] = []
        self.waits: list[float] = []
        self.busy_at = 0.0
        self.start(0.0)
        self.world.process(self.source())
        self.world.process(self.control())

    def source(self) -> Events:
        for ticket, job in enumerate(self.arrivals):
            yield self.world.timeout(job.at_s - self.world.now)
            heapq.heappush(self.queue, (job.at_s + STRETCH * job.cost_s, ticket, job))

    def work(self, actor: Actor, start_s: float) -> Events:
        yield self.world.timeout(start_s)
        actor.ready = True
        while not actor.stopping:
            if not self.queue:
                yield self.world.timeout(TICK_S / 4)
                continue
            job = heapq.heappop(self.queue)[2]
            self.waits.append(self.world.now - job.at_s)
            actor.busy_until = self.world.now + job.cost_s
            yield self.world.timeout(job.cost_s)
            actor.busy_until = None
        actor.until = actor.until or self.world.now

    def control(self) -> Events:
        while True:
            there = [actor for actor in self.pool if not actor.stopping]
            wanted = self.scaler(self.view(there))
            for _ in range(wanted - len(there)):
                self.start(self.start_s)
            # Those that start go first, then idle ones, as in Serve.
            there.sort(key=lambda actor: (actor.ready, actor.busy_until is not None))
            for actor in there[: max(0, len(there) - wanted)]:
                self.stop(actor)
            yield self.world.timeout(TICK_S)

    def view(self, there: Sequence[Actor]) -> View:
        now = self.world.now
        running = [actor.busy_until - now for actor in self.pool if actor.busy_until is not None]
        if running or self.queue:
            self.busy_at = now
        return View(
            now=now,
            target=len(there),
            ready=sum(actor.ready for actor in there),
            waiting=[job.cost_s for _, _, job in self.queue],
            running=running,
            idle_s=now - self.busy_at,
        )

    def start(self, start_s: float) -> None:
        self.pool.append(Actor(self.world.now))
        self.world.process(self.work(self.pool[-1], start_s))

    def stop(self, actor: Actor) -> None:
        actor.stopping = True
        # Whoever is at work finishes it.
        if actor.busy_until is None:
            actor.until = self.world.now


def simulate(arrivals: Sequence[Arrival], scaler: Scaler, *, start_s: float) -> Outcome:
    """Send a trace through a pool that has one actor at first.

    Args:
        arrivals: In order.
        scaler: Asked every second for the number of actors.
        start_s: That an actor takes to start.
    """
    service, end = Service(arrivals, scaler, start_s), 3600.0
    service.world.run(end)
    while len(service.waits) < len(arrivals):
        end += 60.0
        service.world.run(end)
    return Outcome(service.waits, sum((a.until or end) - a.since for a in service.pool))
