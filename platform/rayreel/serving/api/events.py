"""What happens to a job, as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import assert_never

from sse_starlette import ServerSentEvent

from rayreel.config.serving_api import (
    Cancelled,
    Done,
    Event,
    Failed,
    JobError,
    Queued,
    Running,
    Written,
)
from rayreel.serving.api.objects import video_object
from rayreel.serving.api.watch import Seen, Watcher
from rayreel.serving.jobs import Job
from rayreel.serving.service import Service

_NAMES: dict[type[Event], str] = {
    Queued: "queued",
    Running: "running",
    Written: "prompt",
    Done: "done",
    Failed: "failed",
    Cancelled: "cancelled",
}


async def events(
    service: Service, watcher: Watcher, job: Job
) -> AsyncGenerator[ServerSentEvent, None]:
    """How a job stands now, and what happens to it until it is finished or gone."""
    written: str | None = None
    last: Event | None = None
    async with aclosing(watcher.follow(job)) as sights:
        async for seen in sights:
            version = str(seen.job.version)
            if seen.job.written is not None and seen.job.written != written:
                written = seen.job.written
                yield _sent(Written(prompt=written), version)
            event = state_event(service, seen)
            if event != last:
                last = event
                yield _sent(event, version)


def state_event(service: Service, seen: Seen) -> Event:
    """How a job stands, as an event."""
    job = seen.job
    shown = video_object(service, job, seen.place, seen.load)
    match job.state:
        case "queued":
            ahead, eta_s = shown.position or 0, shown.eta_s
            return Queued(position=ahead, eta_s=None if eta_s is None else round(eta_s))
        case "running":
            return Running(
                stage=job.stage,
                step=job.step,
                steps=job.steps,
                eta_s=None if shown.eta_s is None else round(shown.eta_s, 1),
                progress=shown.progress,
                preview=job.preview,
            )
        case "done":
            return Done(video=shown)
        case "failed":
            return Failed(error=JobError(code=job.error, message=job.message))
        case "cancelled":
            return Cancelled()
    assert_never(job.state)


def _sent(event: Event, version: str) -> ServerSentEvent:
    return ServerSentEvent(event.model_dump_json(), event=_NAMES[type(event)], id=version)
