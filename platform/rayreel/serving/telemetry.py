"""What a service tells of its jobs: metrics, a trace for each job, and log lines with its id.

Actors tell of batches as those of render jobs do, by ``cluster.telemetry.Observer`` under the name
of the service: the spans that they send meet those from here in one trace, as its id comes from the
names of service and job. All of it works in a process without Ray, where metrics go nowhere.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rayreel.cluster.metrics import ServiceMetrics
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import Tracer
from rayreel.config.request import RenderRequest
from rayreel.logs import log_context
from rayreel.serving.dispatch.settings import Event
from rayreel.serving.jobs import Job
from rayreel.serving.load import Load
from rayreel.serving.store import Totals
from rayreel.stages.base import ItemFailure, StageItem

Finished = Literal["done", "failed", "cancelled"]

QUEUE = "queue"
"""Name of the span of the wait."""

# Upper bounds, in pixels and seconds: every class is a series of its own in Prometheus.
_SIZES = ((0.25e6, "small"), (0.6e6, "480p"), (1.1e6, "720p"), (2.3e6, "1080p"))
_LENGTHS = ((5.5, "5s"), (10.5, "10s"), (20.5, "20s"))

log = logging.getLogger(__name__)


def shape_class(request: RenderRequest) -> str:
    """Which of some two hundred classes the shape of a resolved request is of.

    Args:
        request: A resolved request.

    Returns:
        Pipeline, size and length, such as ``two_stage 720p 10s``: the least class that holds it.
    """
    words = [str(request.pipeline)]
    if request.video:
        pixels = request.width * request.height
        words.append(next((name for most, name in _SIZES if pixels <= most), "larger"))
    if request.num_frames > 1 or not request.video:
        seconds = request.duration_s
        words.append(next((name for most, name in _LENGTHS if seconds <= most), "longer"))
    return " ".join(words)


class ServiceTelemetry:
    """Tells of the life of jobs, for one process of a service and one thread of it.

    Attributes:
        metrics: For what is no job's alone.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        """Connects to nothing yet.

        Args:
            telemetry: Of the service; ``run`` is its name.
        """
        self.metrics = ServiceMetrics(telemetry.run)
        self._service = telemetry.run
        self._tracer = Tracer(telemetry.run, telemetry.traces)

    @contextmanager
    def about(self, *job_ids: str) -> Iterator[None]:
        """Say in every line that is logged within of which service and jobs it is.

        It must be left in the task that it was entered in, so it cannot stand around the ``yield``
        of a generator that others may close.

        Args:
            job_ids: The jobs.
        """
        with log_context(run=self._service, items=job_ids):
            yield

    def accepted(self, job: Job) -> None:
        """A job is in the queue now."""
        self.metrics.accepted(job.priority)
        with self.about(job.job_id):
            log.info("accepted: %s, %s", job.shape, job.priority)

    def told(self, event: Event) -> None:
        """Something became of a job, as the dispatcher tells it."""
        match event.what:
            case "taken":
                self._started(event)
            case "released":
                self.metrics.retry(event.error or "released")
                with self.about(event.job.job_id):
                    log.warning(
                        "back in the queue after try %d: %s", event.job.attempt, event.error
                    )
            case state:
                self._ended(event, state)

    def cancelled(self, job: Job, at: float) -> None:
        """A job was cancelled in the queue, where no dispatcher had it."""
        self.told(Event(what="cancelled", job=job, at=at))

    def totals(self, totals: Totals, now: float) -> None:
        """How much there is to do.

        Args:
            totals: Of the store.
            now: Seconds since 1970.
        """
        self.metrics.jobs("queued", jobs=totals.queued, seconds=totals.queued_s)
        self.metrics.jobs("running", jobs=totals.running, seconds=totals.running_s)
        oldest = totals.oldest_created_at
        self.metrics.oldest(0.0 if oldest is None else max(0.0, now - oldest))

    def load(self, load: Load) -> None:
        """How busy the pools are."""
        for name, pool in load.pools.items():
            seconds = pool.waiting_s + pool.running_s
            self.metrics.pool(name, replicas=pool.replicas, seconds=seconds)

    def close(self) -> None:
        """Send the spans that are left."""
        self._tracer.close()

    def _started(self, event: Event) -> None:
        job = event.job
        wait_s = max(0.0, event.at - job.created_at)
        if job.attempt == 1:
            # A job does not know when it came back, so later tries have no span of their wait.
            self.metrics.started(job.priority, wait_s)
            item = StageItem(item_id=job.job_id)
            self._tracer.batch(QUEUE, _ns(job.created_at), [item], [item])
        with self.about(job.job_id):
            log.info("started: try %d, %.1f s after it came", job.attempt, wait_s)

    def _ended(self, event: Event, state: Finished) -> None:
        job = event.job
        self.metrics.finished(state, event.error)
        if state == "done" and job.started_at is not None:
            seconds = max(0.0, event.at - job.started_at)
            self.metrics.done(shape_class(job.request), seconds)
        self._tracer.item(_ns(job.created_at), _outcome(event))
        with self.about(job.job_id):
            level = logging.WARNING if state == "failed" else logging.INFO
            said = f"{state}: {event.error}" if event.error else state
            log.log(level, "%s, %.1f s after it came", said, event.at - job.created_at)


def _outcome(event: Event) -> StageItem | ItemFailure:
    job = event.job
    if event.what == "done":
        return StageItem(item_id=job.job_id, attempt=job.attempt)
    return ItemFailure(
        item_id=job.job_id,
        stage=job.stage or QUEUE,
        error=event.error or event.what,
        message=event.error or event.what,
        seed=job.request.seed,
        attempt=job.attempt,
        seconds=sum(event.seconds.values()),
    )


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
