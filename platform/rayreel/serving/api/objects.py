"""Jobs as clients see them."""

import math
from typing import Any

from rayreel.config.serving_api import JobError, Status, VideoObject
from rayreel.serving.api.estimates import eta_s, share_done
from rayreel.serving.jobs import Job, Place, State
from rayreel.serving.load import Load
from rayreel.serving.service import Service

STATUS: dict[State, Status] = {
    "queued": "queued",
    "running": "in_progress",
    "done": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
REMIXED = "remixed_from_video_id"
"""Key in what a job was asked as, besides what the client said."""


def objects(service: Service, jobs: tuple[Job, ...] | list[Job]) -> tuple[VideoObject, ...]:
    """Some jobs as clients see them; raises ``StorageError``."""
    queued = [job for job in jobs if job.state == "queued"]
    if len(queued) == 1:
        # Most questions are of one job, and need not number all that wait.
        places = {queued[0].job_id: service.store.place(queued[0])}
    else:
        places = service.store.places([job.job_id for job in queued]) if queued else {}
    load = service.load() if queued else None
    return tuple(video_object(service, job, places.get(job.job_id), load) for job in jobs)


def video_object(service: Service, job: Job, place: Place | None, load: Load | None) -> VideoObject:
    """A job as a client sees it, with its place if it is queued."""
    request = job.request
    asked: dict[str, Any] = dict(job.asked)
    remixed = asked.pop(REMIXED, None)
    eta = eta_s(job, place, load)
    return VideoObject(
        id=job.job_id,
        object=job.kind,
        model=asked.get("model") or service.spec.name,
        status=STATUS[job.state],
        # All of it only once it is done.
        progress=100 if job.state == "done" else min(math.floor(100 * share_done(job)), 99),
        created_at=int(job.created_at),
        completed_at=None if job.finished_at is None else int(job.finished_at),
        expires_at=None if job.expires_at is None else int(job.expires_at),
        size=f"{request.width}x{request.height}",
        seconds=f"{request.duration_s:.6g}",
        prompt=request.prompt,
        error=JobError(code=job.error, message=job.message) if job.state == "failed" else None,
        remixed_from_video_id=remixed,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        fps=request.fps,
        seed=request.seed,
        pipeline=request.pipeline,
        stage=job.stage or None,
        step=job.step,
        steps=job.steps,
        position=place.ahead if place else None,
        eta_s=None if eta is None else round(eta, 1),
        preview=job.preview,
        attempt=job.attempt,
        cancelling=job.cancelling and not job.finished,
        priority=job.priority,
        tags=job.tags,
        notes=job.notes,
        written_prompt=job.written,
        request=asked,
        token=service.auth.sign(job) if service.auth.required else None,
    )
