"""Jobs over HTTP: make them, look at them, cancel and remove them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from rayreel.config.serving_api import (
    JobFields,
    RemixRequest,
    Status,
    VideoDeleted,
    VideoList,
    VideoObject,
    VideoRequest,
)
from rayreel.serving.api.access import job_of, owner_of
from rayreel.serving.api.bodies import body_of, check_texts
from rayreel.serving.api.errors import ApiError, conflict
from rayreel.serving.api.objects import REMIXED, STATUS, objects
from rayreel.serving.api.openapi import takes
from rayreel.serving.api.submission import (
    OF_THE_JOB,
    Asked,
    checked_key,
    render_fields,
    submit,
    tell_cancelled,
)
from rayreel.serving.jobs import Job, State
from rayreel.serving.service import Service

JobId = Annotated[str, Path(description="name of the job")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="printable characters, at most 255: a request that comes again with the same "
        "key is answered with the job that it made the first time"
    ),
]
_STATES: Mapping[Status, State] = {status: state for state, status in STATUS.items()}


def video_routes(service: Service) -> APIRouter:
    """Routes below ``/v1/videos``, but for files and events."""
    router = APIRouter(prefix="/v1/videos", tags=["videos"])

    def shown(job: Job) -> VideoObject:
        (found,) = objects(service, [job])
        return found

    @router.post("", openapi_extra=takes(VideoRequest, form=True))
    async def create(request: Request, idempotency_key: IdempotencyKey = None) -> VideoObject:
        """Ask for a clip; it is made later, see its status and events."""
        key = checked_key(idempotency_key)
        async with body_of(request) as body:
            asked = body.parse(VideoRequest)
            fields = await run_in_threadpool(render_fields, service, asked)
            job = await submit(
                service,
                Asked(
                    owner=owner_of(request),
                    fields=fields,
                    job=asked,
                    parts=body.parts,
                    key=key,
                    digest=body.digest,
                ),
            )
        return await run_in_threadpool(shown, job)

    @router.get("")
    def list_videos(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100, description="jobs at most")] = 20,
        after: Annotated[str | None, Query(description="job that the list goes on after")] = None,
        order: Annotated[
            Literal["asc", "desc"], Query(description="by when they came: oldest or newest first")
        ] = "desc",
        status: Annotated[
            list[Status] | None, Query(description="of the jobs; several are fine")
        ] = None,
        q: Annotated[
            str | None, Query(max_length=500, description="text within their prompts")
        ] = None,
        tag: Annotated[
            list[str] | None,
            Query(max_length=16, description="NAME:VALUE of a tag that they have; or several"),
        ] = None,
    ) -> VideoList:
        """Your clips, newest first."""
        check_texts([text for text in (after, q, *(tag or ())) if text])
        if after is not None:
            _check_after(service, request, after)
        page = service.store.list(
            owner=owner_of(request),
            limit=limit,
            after=after,
            ascending=order == "asc",
            states=tuple(_STATES[one] for one in status or ()),
            kind="video",
            tags=_tags(tag or ()),
            text=q or None,
        )
        found = objects(service, page.jobs)
        return VideoList(
            data=found,
            first_id=found[0].id if found else None,
            last_id=found[-1].id if found else None,
            has_more=page.more,
        )

    @router.get("/{video_id}")
    def retrieve(request: Request, video_id: JobId) -> VideoObject:
        """How a job stands."""
        return shown(job_of(service, request, video_id))

    @router.delete("/{video_id}")
    def delete(request: Request, video_id: JobId) -> VideoDeleted:
        """Remove a finished job and its files."""
        job_of(service, request, video_id)
        if not service.store.delete(video_id):
            raise conflict(
                f"{video_id} is not finished; cancel it first, and wait until it has stopped",
                code="not_finished",
            )
        service.files.remove(video_id)
        return VideoDeleted(id=video_id)

    @router.post("/{video_id}/cancel")
    async def cancel(request: Request, video_id: JobId) -> VideoObject:
        """Stop a job; one that is finished stays as it is."""
        await run_in_threadpool(job_of, service, request, video_id)
        job = await run_in_threadpool(service.store.ask_cancel, video_id)
        if job is None:
            raise ApiError(404, f"{video_id} is gone", code="not_found", param="id")
        await tell_cancelled(service, job)
        return await run_in_threadpool(shown, job)

    @router.post("/{video_id}/remix", openapi_extra=takes(RemixRequest))
    async def remix(
        request: Request, video_id: JobId, idempotency_key: IdempotencyKey = None
    ) -> VideoObject:
        """Make a clip again from another prompt, with the same seed and all else the same."""
        key = checked_key(idempotency_key)
        source = await run_in_threadpool(job_of, service, request, video_id)
        async with body_of(request) as body:
            prompt = body.parse(RemixRequest).prompt
        said = dict(source.asked)
        of_the_job = {name: said.pop(name) for name in OF_THE_JOB & said.keys()}
        said.pop(REMIXED, None)
        fields: dict[str, Any] = {"seed": source.request.seed, **said, "prompt": prompt}
        asked = Asked(
            owner=owner_of(request),
            fields=fields,
            job=JobFields.model_validate(of_the_job),
            kind=source.kind,
            source=source,
            key=key,
            digest=f"{video_id} {body.digest}",
            more={REMIXED: video_id},
        )
        return await run_in_threadpool(shown, await submit(service, asked))

    return router


def _check_after(service: Service, request: Request, after: str) -> None:
    try:
        job_of(service, request, after)
    except ApiError as error:
        raise ApiError(
            400, f"parameter 'after': {error}", code="invalid_value", param="after"
        ) from error


def _tags(tags: list[str] | tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag in tags:
        name, colon, value = tag.partition(":")
        if not colon or not name or found.get(name, value) != value:
            raise ApiError(
                400,
                f"parameter 'tag' should be NAME:VALUE, each name once, got {tag[:100]!r}",
                code="invalid_value",
                param="tag",
            )
        found[name] = value
    return found
