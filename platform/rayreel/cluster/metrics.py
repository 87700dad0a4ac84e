"""Metrics of a run, on the port where every node of the cluster exports Ray's own.

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
