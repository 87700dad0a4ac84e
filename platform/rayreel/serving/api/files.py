"""What was made, and what happens to it: files and events of a job."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from rayreel.config.serving_api import Variant
from rayreel.errors import MediaError
from rayreel.serving.api.access import job_of
from rayreel.serving.api.errors import ApiError, conflict
from rayreel.serving.api.events import events
from rayreel.serving.api.extracts import Extracts
from rayreel.serving.api.ranges import file_response
from rayreel.serving.api.videos import JobId
from rayreel.serving.api.watch import Watcher
from rayreel.serving.jobs import Job
from rayreel.serving.service import Service

_PING_S = 15
_TYPES = {
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webp": "image/webp",
    ".wav": "audio/wav",
    ".m4a": "audio/mp4",
}
# A browser shows a file within a document of its own, which may load just that.
_POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
Token = Annotated[
    str | None, Query(description="the job's token, in place of a key, where keys are needed")
]
_CONTENT: dict[str, Any] = {
    kind: {"schema": {"type": "string", "format": "binary"}} for kind in _TYPES.values()
}
_PARTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "the file", "content": _CONTENT},
    206: {"description": "a part of the file", "content": _CONTENT},
    304: {"description": "the client has it"},
}
_PREVIEW: dict[int | str, dict[str, Any]] = {
    200: {"description": "the picture", "content": {"image/webp": _CONTENT["image/webp"]}}
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "events queued, running, prompt, and at last one of done, failed and "
        "cancelled; each with JSON, and with the job's version as its id",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def file_routes(service: Service, watcher: Watcher) -> APIRouter:
    """Routes to what belongs to one job."""
    router = APIRouter(prefix="/v1/videos/{video_id}", tags=["videos"])
    extracts = Extracts(service.storage)

    def content(
        request: Request,
        video_id: JobId,
        variant: Annotated[
            Variant, Query(description="the clip, a small picture of it, or its sound")
        ] = "video",
        token: Token = None,  # noqa: ARG001 - read by the guard
    ) -> Response:
        """The file of a finished job, or something taken from it; parts of it by ``Range``."""
        job = job_of(service, request, video_id)
        name = _name(extracts, job, variant)
        suffix = PurePosixPath(name).suffix
        assert job.output is not None
        try:
            size = service.storage.size(name)
        except FileNotFoundError as error:
            raise _gone(video_id) from error
        headers = {
            "Content-Type": _TYPES[suffix],
            "Content-Disposition": f'inline; filename="{video_id}{suffix}"',
            "Content-Security-Policy": _POLICY,
            # Kept by the client, but asked for again: it may have been removed.
            "Cache-Control": "private, no-cache",
        }
        tag = f'"{job.output.sha256[:32]}-{job.output.num_bytes:x}{suffix}"'
        source = service.storage.join(name)
        return file_response(request, source, size=size, tag=tag, headers=headers)

    router.get("/content", response_class=Response, responses=_PARTS)(content)
    router.head("/content", include_in_schema=False)(content)

    @router.get("/preview", response_class=Response, responses=_PREVIEW)
    def preview(
        request: Request,
        video_id: JobId,
        token: Token = None,  # noqa: ARG001 - read by the guard
    ) -> Response:
        """What a running job looks like so far: small, and not there from the start."""
        job = job_of(service, request, video_id)
        picture = service.store.picture(video_id)
        if picture is None:
            raise ApiError(
                404,
                f"{video_id} has no preview, it is {job.state}; expected one that is in progress, "
                "and whose field preview is not 0",
                code="no_preview",
            )
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return Response(picture, media_type="image/webp", headers=headers)

    @router.get("/events", response_class=EventSourceResponse, responses=_STREAM)
    async def follow(
        request: Request,
        video_id: JobId,
        token: Token = None,  # noqa: ARG001 - read by the guard
    ) -> EventSourceResponse:
        """What happens to a job, as server-sent events: first how it stands now."""
        job = await run_in_threadpool(job_of, service, request, video_id)
        return EventSourceResponse(events(service, watcher, job), ping=_PING_S, sep="\n")

    return router


def _name(extracts: Extracts, job: Job, variant: Variant) -> str:
    """Name of the file in the service directory."""
    if job.state != "done" or job.output is None:
        raise conflict(
            f"{job.job_id} has no file, it is {job.state}; expected one that is completed",
            code="not_completed",
        )
    suffix = PurePosixPath(job.output.path).suffix
    if variant == "video" or (variant == "audio" and suffix in (".wav", ".m4a")):
        return job.output.path
    try:
        return extracts.thumbnail(job) if variant == "thumbnail" else extracts.sound(job)
    except MediaError as error:
        if not extracts.there(job):
            raise _gone(job.job_id) from error
        what = "picture" if variant == "thumbnail" else "sound"
        raise ApiError(
            404, f"{job.job_id} has no {what}", code=f"no_{what}", param="variant"
        ) from error


def _gone(job_id: str) -> ApiError:
    return ApiError(404, f"the file of {job_id} was removed", code="content_gone")
