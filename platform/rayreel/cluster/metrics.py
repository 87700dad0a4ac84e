"""Metrics of a run or a service, on the port where every node of the cluster exports Ray's own.

Prometheus sees them as ``ray_rayreel_...``. Without a cluster, or with the collection of metrics
turned off, they cost some microseconds and go nowhere.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ray.util.metrics import Counter, Gauge, Histogram


@dataclass(frozen=True)
class Definition:
    """A metric, before it is used.

    Attributes:
        name: As Ray is told it.
        kind: What it does with values.
        description: What it counts or holds.
        tags: Names of its labels, after ``run``.
        bounds: Upper bounds of a histogram's buckets. Ray adds up a bucket's middle for each value,
            so that only its counts are exact, not its sum.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """Names that Prometheus sees."""
        endings = {
            "counter": ("_total",),
            "gauge": ("",),
            "histogram": ("_bucket", "_count", "_sum"),
        }
        return tuple(f"ray_{self.name}{ending}" for ending in endings[self.kind])


# A tiny text takes milliseconds, a long clip an hour.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
_MINUTES = (900, 1800, 3600, 7200)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
# A queue may be hours long.
_HOURS = (14_400, 28_800, 86_400)
_RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2, 3, 4, 8)

DEFINITIONS = (
    Definition(
        "rayreel_batch_seconds",
        "histogram",
        "Time of a batch in a stage",
        ("stage",),
        (*_SECONDS, *_MINUTES),
    ),
    Definition("rayreel_batch_items", "histogram", "Items of a batch", ("stage",), _SIZES),
    Definition("rayreel_stage_items", "counter", "Items that a stage has finished", ("stage",)),
    Definition("rayreel_loads", "counter", "Networks that were loaded", ("stage", "network")),
    Definition("rayreel_text_hits", "counter", "Texts that were found encoded"),
    Definition("rayreel_text_misses", "counter", "Texts that had to be encoded"),
    Definition("rayreel_failures", "counter", "Tries of items that failed", ("stage", "error")),
    Definition("rayreel_retries", "counter", "Items that are tried again", ("reason",)),
    Definition("rayreel_queue_items", "gauge", "Items that wait for a stage", ("stage",)),
    Definition("rayreel_items_left", "gauge", "Items of the run that are not finished"),
    Definition("rayreel_items_done", "gauge", "Items of the run that have a file"),
    Definition("rayreel_items_failed", "gauge", "Items of the run that have failed for good"),
    Definition("rayreel_jobs", "gauge", "Jobs that wait or run", ("state",)),
    Definition("rayreel_jobs_seconds", "gauge", "Work of jobs that wait or run", ("state",)),
    Definition("rayreel_jobs_oldest_seconds", "gauge", "How long the first of the queue waits"),
    Definition("rayreel_jobs_accepted", "counter", "Jobs that were accepted", ("priority",)),
    Definition("rayreel_jobs_finished", "counter", "Jobs that ended", ("state", "error")),
    Definition("rayreel_refusals", "counter", "Requests that were refused", ("code",)),
    Definition(
        "rayreel_job_wait_seconds",
        "histogram",
        "Time from when a job was accepted until it started",
        ("priority",),
        (*_SECONDS, *_MINUTES, *_HOURS),
    ),
    Definition(
        "rayreel_job_seconds",
        "histogram",
        "Time from when a job started until it was done",
        ("shape",),
        (*_SECONDS, *_MINUTES),
    ),
    Definition(
        "rayreel_eta_ratio",
        "histogram",
        "Time that a job took, as a share of what was told when it was accepted",
        (),
        _RATIOS,
    ),
    Definition("rayreel_pool_replicas", "gauge", "Actors of a pool that are ready", ("pool",)),
    Definition("rayreel_pool_seconds", "gauge", "Work that is left for a pool", ("pool",)),
)


class StageMetrics:
    """What a worker tells of one of its stages."""

    def __init__(self, run: str, stage: str) -> None:
        """Cheap; there may be one for each stage of an actor.

        Args:
            run: Short id of the run.
            stage: Name of the stage.
        """
        self._tags = {"run": run, "stage": stage}

    def batch(self, items: int, seconds: float) -> None:
        """A batch went through.

        Args:
            items: How many were in it.
            seconds: How long it took.
        """
        _observe("rayreel_batch_seconds", seconds, self._tags)
        _observe("rayreel_batch_items", items, self._tags)
        _count("rayreel_stage_items", items, self._tags)

    def load(self, network: str) -> None:
        """A network was loaded, named by its class."""
        _count("rayreel_loads", 1, {**self._tags, "network": network})

    def failure(self, error: str) -> None:
        """A try of an item failed, with an error of this class."""
        _count("rayreel_failures", 1, {**self._tags, "error": error})


class RunMetrics:
    """What the driver tells of a run."""

    def __init__(self, run: str) -> None:
        """Cheap.

        Args:
            run: Short id of the run.
        """
        self._tags = {"run": run}

    def progress(self, *, left: int, done: int, failed: int) -> None:
        """How many items of the run are not finished, have a file, or have failed for good."""
        for name, items in {"left": left, "done": done, "failed": failed}.items():
            _set(f"rayreel_items_{name}", items, self._tags)

    def queue(self, stage: str, items: int) -> None:
        """How many items wait for a stage."""
        _set("rayreel_queue_items", items, {**self._tags, "stage": stage})

    def texts(self, *, hits: int, misses: int) -> None:
        """How many more texts were found encoded, and how many had to be encoded."""
        _count("rayreel_text_hits", hits, self._tags)
        _count("rayreel_text_misses", misses, self._tags)

    def retry(self, reason: str, items: int = 1) -> None:
        """Items are tried again.

        Args:
            reason: A few words that are always the same, such as ``worker lost``.
            items: How many.
        """
        _count("rayreel_retries", items, {**self._tags, "reason": reason})


class ServiceMetrics:
    """What the processes of a service tell of its jobs."""

    def __init__(self, service: str) -> None:
        """Cheap; every process has its own.

        Args:
            service: Its name, which stands where runs have their id.
        """
        self._tags = {"run": service}

    def accepted(self, priority: str) -> None:
        """A job of this priority was accepted."""
        _count("rayreel_jobs_accepted", 1, {**self._tags, "priority": priority})

    def refused(self, code: str) -> None:
        """A request was refused.

        Args:
            code: Why, in one of a few words that are always the same, such as ``queue_full``.
        """
        _count("rayreel_refusals", 1, {**self._tags, "code": code})

    def started(self, priority: str, wait_s: float) -> None:
        """A job of this priority started after a wait."""
        _observe("rayreel_job_wait_seconds", wait_s, {**self._tags, "priority": priority})

    def done(self, shape: str, seconds: float) -> None:
        """The work of a job is done.

        Args:
            shape: Class of its shape; there must be few.
            seconds: How long it took, without the wait.
        """
        _observe("rayreel_job_seconds", seconds, {**self._tags, "shape": shape})

    def finished(self, state: str, error: str = "") -> None:
        """A job ended.

        Args:
            state: As what.
            error: Why it failed, as clients are told.
        """
        _count("rayreel_jobs_finished", 1, {**self._tags, "state": state, "error": error})

    def retry(self, reason: str, jobs: int = 1) -> None:
        """Jobs go back to the queue.

        Args:
            reason: A few words that are always the same, such as ``taken over``.
            jobs: How many.
        """
        _count("rayreel_retries", jobs, {**self._tags, "reason": reason})

    def eta(self, told_s: float, took_s: float) -> None:
        """How long a job took from when it was accepted, and what its client was told then."""
        if told_s > 0:
            _observe("rayreel_eta_ratio", took_s / told_s, self._tags)

    def jobs(self, state: str, *, jobs: int, seconds: float) -> None:
        """How many jobs wait, or run, and the work in them."""
        tags = {**self._tags, "state": state}
        _set("rayreel_jobs", jobs, tags)
        _set("rayreel_jobs_seconds", seconds, tags)

    def oldest(self, seconds: float) -> None:
        """How long the job waits that came first of those in the queue; 0 without any."""
        _set("rayreel_jobs_oldest_seconds", seconds, self._tags)

    def pool(self, pool: str, *, replicas: int, seconds: float) -> None:
        """How many actors of a pool are ready, and the work that is left for them."""
        tags = {**self._tags, "pool": pool}
        _set("rayreel_pool_replicas", replicas, tags)
        _set("rayreel_pool_seconds", seconds, tags)


def _count(name: str, more: int, tags: Mapping[str, str]) -> None:
    metric = _metric(name)
    assert isinstance(metric, Counter)
    # Ray refuses to count nothing.
    if more:
        metric.inc(more, tags=dict(tags))


def _set(name: str, value: float, tags: Mapping[str, str]) -> None:
    metric = _metric(name)
    assert isinstance(metric, Gauge)
    metric.set(value, tags=dict(tags))


def _observe(name: str, value: float, tags: Mapping[str, str]) -> None:
    metric = _metric(name)
    assert isinstance(metric, Histogram)
    metric.observe(value, tags=dict(tags))


@functools.cache
def _metric(name: str) -> Counter | Gauge | Histogram:
    """Ray's object of a metric: one for a process, however many stages and runs use it."""
    (found,) = [definition for definition in DEFINITIONS if definition.name == name]
    tags = ("run", *found.tags)
    match found.kind:
        case "histogram":
            return Histogram(name, found.description, [*found.bounds], tags)
        case "counter":
            return Counter(name, found.description, tags)
        case "gauge":
            return Gauge(name, found.description, tags)
