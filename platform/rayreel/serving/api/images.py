"""Pictures over HTTP: asked for and answered in one request, as OpenAI's are."""

import asyncio
import base64
import logging
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from rayreel.config.serving_api import (
    ImageList,
    ImageRequest,
    MadeImage,
    VideoRequest,
)
from rayreel.data.hashing import content_hash
from rayreel.errors import StorageError
from rayreel.serving.api.access import owner_of
from rayreel.serving.api.bodies import Body, body_of
from rayreel.serving.api.errors import ApiError
from rayreel.serving.api.openapi import takes
from rayreel.serving.api.submission import Asked, checked_key, render_fields, submit, tell_cancelled
from rayreel.serving.api.videos import IdempotencyKey
from rayreel.serving.api.watch import Watcher
from rayreel.serving.jobs import Job
from rayreel.serving.service import Service

log = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""How long a client may wait for its pictures."""

_ONE_FRAME = {"num_frames": 1, "audio": False}
_OF_THE_ANSWER = {"n", "size", "response_format", "output_format"}


def image_routes(
    service: Service, watcher: Watcher, *, patience_s: float = PATIENCE_S
) -> APIRouter:
    """Routes below ``/v1/images``."""
    router = APIRouter(prefix="/v1/images", tags=["images"])
    takes_image = takes(ImageRequest)

    @router.post("/generations", openapi_extra=takes_image)
    async def generate(request: Request, idempotency_key: IdempotencyKey = None) -> ImageList:
        """Make pictures, and wait for them; they are cancelled if the client goes away."""
        key = checked_key(idempotency_key)
        async with body_of(request) as body:
            asked = body.parse(ImageRequest)
        jobs: list[Job] = []
        try:
            for one in await run_in_threadpool(
                _asked, service, owner_of(request), asked, body, key
            ):
                jobs.append(await submit(service, one))
            done = await _finished(request, watcher, jobs, patience_s)
        except BaseException:
            # Also when the server tells by cancelling this that the client went away.
            await asyncio.shield(_cancel(service, jobs))
            raise
        return await run_in_threadpool(_answer, service, request, asked, done)

    @router.post("", openapi_extra=takes_image, operation_id="create_images")
    async def create(request: Request, idempotency_key: IdempotencyKey = None) -> ImageList:
        """The same as ``/v1/images/generations``."""
        return await generate(request, idempotency_key)

    return router


def _asked(
    service: Service, owner: str, asked: ImageRequest, body: Body, key: str | None
) -> list[Asked]:
    """A job for each picture."""
    said: dict[str, Any] = asked.model_dump(mode="json", exclude_unset=True, exclude=_OF_THE_ANSWER)
    if asked.size not in (None, "auto"):
        said["size"] = asked.size
    request = VideoRequest.model_validate(said | _ONE_FRAME)
    fields = render_fields(service, request)
    if asked.n > 1 and asked.seed is None:
        fields["seed"] = secrets.randbelow(2**32)
    return [
        Asked(
            owner=owner,
            fields=fields | ({"seed": fields["seed"] + index} if index else {}),
            job=request,
            kind="image",
            key=key if key is None or index == 0 else content_hash(key, str(index)),
            digest=body.digest,
        )
        for index in range(asked.n)
    ]


async def _finished(
    request: Request, watcher: Watcher, jobs: Sequence[Job], patience_s: float
) -> list[Job]:
    """The jobs once all are done; raises ``ApiError`` for one that is not."""
    waiting = asyncio.gather(*(_last_seen(watcher, job) for job in jobs))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait(
            (waiting, leaving), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
        )
        if waiting.done():
            return list(waiting.result())
        if leaving.done():
            raise ApiError(499, "the client went away", code="client_closed_request")
        raise ApiError(
            504,
            f"not done within {patience_s:g} s, and cancelled; ask for /v1/videos with num_frames "
            "1, which does not wait",
            code="timeout",
            headers={"x-should-retry": "false"},
        )
    finally:
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


async def _last_seen(watcher: Watcher, job: Job) -> Job:
    async with aclosing(watcher.follow(job)) as sights:
        async for seen in sights:
            job = seen.job
    if job.state == "done" and job.output is not None:
        return job
    message = job.message or f"{job.job_id} was cancelled or removed"
    status = 504 if job.error == "deadline_exceeded" else 500 if job.state == "failed" else 409
    raise ApiError(
        status, message, code=job.error or "cancelled", headers={"x-should-retry": "false"}
    )


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(service: Service, jobs: Sequence[Job]) -> None:
    for job in jobs:
        try:
            asked = await asyncio.to_thread(service.store.ask_cancel, job.job_id)
        except StorageError as error:
            log.warning("%s could not be cancelled, and is made for nobody: %s", job.job_id, error)
            continue
        if asked is not None:
            await tell_cancelled(service, asked)


def _answer(
    service: Service, request: Request, asked: ImageRequest, jobs: Sequence[Job]
) -> ImageList:
    made = []
    for job in jobs:
        assert job.output is not None
        data, url = None, None
        if asked.response_format == "url":
            where = request.url_for("content", video_id=job.job_id)
            if service.auth.required:
                where = where.include_query_params(token=service.auth.sign(job))
            url = str(where)
        else:
            data = base64.b64encode(service.storage.read_bytes(job.output.path)).decode()
        made.append(
            MadeImage(
                b64_json=data,
                url=url,
                revised_prompt=job.written,
                id=job.job_id,
                seed=job.request.seed,
            )
        )
    first = jobs[0]
    return ImageList(
        created=int(first.created_at),
        data=tuple(made),
        size=f"{first.request.width}x{first.request.height}",
    )
