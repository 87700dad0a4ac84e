"""From what a client asks for to a job in the queue."""

import asyncio
import difflib
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile

from rayreel.checkpoints.library import adapter_names
from rayreel.config.serving_api import JobFields, VideoRequest, pixels
from rayreel.errors import StorageError
from rayreel.serving.api.errors import ApiError, full
from rayreel.serving.api.kept_files import copy_files, relative
from rayreel.serving.dispatch.order import due
from rayreel.serving.jobs import Job, Kind, NewJob
from rayreel.serving.planning import Planned
from rayreel.serving.service import Service
from rayreel.serving.store import QueueFull

JOB_ID = re.compile(r"(video|image)_[0-9a-f]{32}")
OF_THE_JOB = frozenset(JobFields.model_fields)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_TURN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A valid request.

    Attributes:
        owner: Id of the key that it came with.
        fields: Of a ``RenderRequest``, those that were said.
        job: What was said of the job.
        kind: What it is asked for as.
        parts: Files of the form by name.
        source: Job whose files the fields name, in place of parts.
        key: For trying again without making it twice.
        digest: Hash of what was sent, to tell whether that is the same again.
        more: Further entries of the job's ``asked``.
    """

    owner: str
    fields: Mapping[str, Any]
    job: JobFields
    kind: Kind = "video"
    parts: Mapping[str, UploadFile] = field(default_factory=dict)
    source: Job | None = None
    key: str | None = None
    digest: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def checked_key(key: str | None) -> str | None:
    """The header ``Idempotency-Key``; raises ``ApiError`` for one that cannot be."""
    if key is not None and not _KEY.fullmatch(key):
        raise ApiError(
            400,
            "expected an Idempotency-Key of 1 to 255 printable ASCII characters",
            code="invalid_value",
            param="Idempotency-Key",
        )
    return key


def render_fields(service: Service, request: VideoRequest) -> dict[str, Any]:
    """What is asked for, as fields of a ``RenderRequest``: only those that were said.

    Raises:
        ApiError: If it names a model or an adapter that is not there.
    """
    left_out = {*OF_THE_JOB, "size", "input_reference"}
    fields = request.model_dump(mode="json", exclude_unset=True, exclude=left_out)
    if request.size:
        fields["width"], fields["height"] = pixels(request.size)
    if request.input_reference:
        first = {"path": request.input_reference.image_url, "frame": 0}
        fields["images"] = [first, *fields.get("images", ())]
    if adapters := _adapters(service, request):
        fields["loras"] = [*adapters, *fields.get("loras", ())]
    return fields


def _adapters(service: Service, request: JobFields) -> list[dict[str, Any]]:
    """Adapters that are named by ``model`` and by ``lora``."""
    named: list[str] = []
    if request.model is not None and request.model != service.spec.name:
        if request.model not in adapter_names():
            raise no_such_model(service, request.model)
        named.append(request.model)
    if request.lora is not None:
        if request.lora not in (known := adapter_names()):
            near = difflib.get_close_matches(request.lora, known, n=1, cutoff=0)
            said = f"nearest is {near[0]!r}" if near else "it has none yet"
            raise ApiError(
                400,
                f"field 'lora': no adapter of the library; {said}",
                code="invalid_value",
                param="lora",
            )
        named.append(request.lora)
    return [{"path": name, "strength": 1.0} for name in named]


def no_such_model(service: Service, name: str) -> ApiError:
    """The error for a model that is not there."""
    known = ", ".join([service.spec.name, *adapter_names()])
    return ApiError(
        404,
        f"model {name[:100]!r} does not exist; known: {known}",
        code="model_not_found",
        param="model",
    )


async def submit(service: Service, asked: Asked) -> Job:
    """Put a request into the queue.

    Returns:
        The job; an earlier one if the key came before with the same request.

    Raises:
        ApiError: If the queue is full, or it names a clip that is not there.
        FileRefused: If one of its files is refused.
        RequestRefused: If it cannot be done.
        KeyReused: If the key came before with another request.
        StorageError: If the database or the service directory does not answer.
    """
    job_id = f"{asked.kind}_{uuid.uuid4().hex}"
    await asyncio.to_thread(_check_clip, service, asked)
    try:
        if asked.source is None:
            placed = await service.files.place(job_id, dict(asked.fields), asked.parts)
        else:
            placed = await asyncio.to_thread(
                copy_files, service.storage, asked.source.job_id, job_id, asked.fields
            )
    except BaseException:
        await asyncio.to_thread(service.files.remove, job_id)
        raise
    # A client that goes away does not stop the thread, which therefore also cleans up.
    job = await asyncio.to_thread(_queue, service, asked, job_id, placed)
    if job.job_id == job_id:
        service.accepted(job)
        await service.wake()
    return job


async def tell_cancelled(service: Service, job: Job) -> None:
    """Tell others of a job that was asked to stop, as the store returned it."""
    if job.cancelling and not job.finished:
        await service.cancel(job.job_id)
    elif job.state == "cancelled" and job.started_at is None:
        service.cancelled(job)


def _check_clip(service: Service, asked: Asked) -> None:
    """A clip that is gone on from is a finished one of the same owner."""
    clip = (asked.fields.get("extend") or {}).get("clip")
    if clip is None:
        return
    found = service.store.get(clip) if JOB_ID.fullmatch(clip) else None
    if found is None or found.owner != asked.owner or found.state != "done":
        raise ApiError(
            400,
            "field 'extend.clip': expected the id of a finished clip; this one does not exist or "
            "is not finished",
            code="invalid_value",
            param="extend.clip",
        )


def _queue(service: Service, asked: Asked, job_id: str, placed: Mapping[str, Any]) -> Job:
    queue = service.spec.queue
    try:
        planned = service.planner.plan(placed)
        with _in_turn(service.turn):
            job, accepted = service.store.submit(
                _new_job(service, asked, job_id, placed, planned),
                max_jobs=queue.max_jobs,
                max_jobs_per_owner=queue.max_jobs_per_key,
            )
    except StorageError:
        # The job may be in the queue all the same, and need its files.
        raise
    except QueueFull as error:
        service.files.remove(job_id)
        totals = service.store.totals()
        raise full(error, totals.queued_s / max(totals.queued, 1)) from error
    except BaseException:
        service.files.remove(job_id)
        raise
    if not accepted:
        service.files.remove(job_id)
    return job


@contextmanager
def _in_turn(turn: threading.Lock) -> Iterator[None]:
    """From the time of a job until it is in the queue, or others would have seen better places.

    One that waits long for the database does not hold up the others.
    """
    held = turn.acquire(timeout=_TURN_S)
    try:
        yield
    finally:
        if held:
            turn.release()


def _new_job(
    service: Service, asked: Asked, job_id: str, placed: Mapping[str, Any], planned: Planned
) -> NewJob:
    now = time.time()
    said = asked.job.model_dump(mode="json", exclude_unset=True, include={*OF_THE_JOB} - {"lora"})
    deadline_s, priority = asked.job.deadline_s, asked.job.priority
    return NewJob(
        job_id=job_id,
        owner=asked.owner,
        kind=asked.kind,
        request=planned.request,
        asked={**said, **relative(service.storage, job_id, placed), **asked.more},
        shape=planned.shape,
        batch_key=planned.batch_key,
        adapters=planned.adapters,
        cost_s=planned.cost_s,
        stage_s=dict[str, float](planned.stage_s.items()),
        priority=priority,
        due=due(now, planned.cost_s, priority, service.spec.queue),
        created_at=now,
        deadline_at=None if deadline_s is None else now + deadline_s,
        idempotency_key=asked.key,
        digest=asked.digest,
        tags=asked.job.tags,
        notes=planned.notes,
    )
