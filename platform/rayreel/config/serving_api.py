"""What clients say to a service over HTTP, and what it answers; names and shapes are OpenAI's.

Answers are plain models rather than strict ones: clients are told to expect further fields.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.conditions import AdapterSpec
from rayreel.config.request import Prompt, RequestFields
from rayreel.config.serving import Priority

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
Variant = Literal["video", "thumbnail", "audio"]

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
MOST_TAGS = 16
MOST_IMAGES = 8


def _size(text: str) -> str:
    if not _SIZE.fullmatch(text):
        raise ValueError("expected WIDTHxHEIGHT in pixels, such as 768x512")
    return text


def pixels(size: str) -> tuple[int, int]:
    """Width and height of a ``size``."""
    width, _, height = size.partition("x")
    return int(width), int(height)


Size = Annotated[str, AfterValidator(_size)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]
TagValue = Annotated[str, Field(max_length=256)]
Tags = Annotated[dict[Tag, TagValue], Field(max_length=MOST_TAGS)]


class InputReference(StrictModel):
    """A picture that the clip begins with."""

    image_url: str = Field(description="data: URI, or an https address that the service allows")


class JobFields(StrictModel):
    """What every request may say besides what it asks for."""

    model: str | None = Field(
        default=None,
        description="the service's model, or the name of an adapter in its library, which is then "
        "used with strength 1",
    )
    lora: str | None = Field(
        default=None, description="name of an adapter in the library, used with strength 1"
    )
    priority: Priority = Field(default="normal", description="class of the job in the queue")
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86400,
        allow_inf_nan=False,
        description="seconds from now after which the job is of no use: it fails then",
    )
    tags: Tags = Field(
        default_factory=dict,
        description="names and values of the client's own, at most 16, to find the job by",
    )


class VideoRequest(JobFields, RequestFields):
    """A clip to make."""

    prompt: Prompt = Field(description="what the clip shows and sounds like")
    size: Size | None = Field(
        default=None, description="WIDTHxHEIGHT in pixels, instead of width and height"
    )
    input_reference: InputReference | None = Field(
        default=None, description="picture that the first frame shows; or a file of that name"
    )

    @model_validator(mode="after")
    def _size_is_said_once(self) -> Self:
        if self.size and {"width", "height"} & self.model_fields_set:
            raise ValueError("size says what width and height say; expected either")
        return self


class ImageRequest(JobFields):
    """Pictures to make."""

    prompt: Prompt = Field(description="what the pictures show")
    negative_prompt: str | None = Field(
        default=None, description="what they must not be; a general list by default"
    )
    enhance: bool = Field(
        default=False,
        description="whether the text encoder's language model rewrites the prompt first",
    )
    n: int = Field(default=1, ge=1, le=MOST_IMAGES, description="how many, each of another seed")
    size: Size | Literal["auto"] | None = Field(
        default=None, description="WIDTHxHEIGHT in pixels; by default, or with auto, the service's"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63 - MOST_IMAGES,
        description="of the first picture, the next has one more; random by default",
    )
    steps: int | None = Field(default=None, ge=1, le=1000, description="model evaluations")
    loras: tuple[AdapterSpec, ...] = Field(default=(), description="adapters by name, and strength")
    response_format: Literal["b64_json", "url"] = Field(
        default="b64_json",
        description="whether pictures come in the answer, or are to be fetched from an address",
    )
    output_format: Literal["png"] = Field(default="png", description="format of the pictures")


class RemixRequest(StrictModel):
    """The same clip from another prompt."""

    prompt: Prompt = Field(description="what the clip shows and sounds like instead")


class Answer(BaseModel):
    """Something that a service says."""

    model_config = ConfigDict(frozen=True)


class JobError(Answer):
    """Why a job failed."""

    code: str = Field(description="class of what went wrong, such as worker_lost")
    message: str = Field(description="what went wrong, in words")


class VideoObject(Answer):
    """A job, and the clip or picture that it becomes."""

    id: str = Field(description="name of the job")
    object: Literal["video", "image"] = Field(description="what it was asked for as")
    model: str = Field(description="model that it was asked of")
    status: Status = Field(description="where it is in its life")
    progress: int = Field(ge=0, le=100, description="percent of its work that is done")
    created_at: int = Field(description="when it came, in seconds since 1970")
    completed_at: int | None = Field(
        default=None, description="when it was finished, however that went, in seconds since 1970"
    )
    expires_at: int | None = Field(
        default=None, description="when it is removed with its files, in seconds since 1970"
    )
    size: str = Field(description="WIDTHxHEIGHT in pixels")
    seconds: str = Field(description="length of what is made, in seconds")
    prompt: str = Field(description="what it shows and sounds like, as it was asked")
    error: JobError | None = Field(default=None, description="why it failed")
    remixed_from_video_id: str | None = Field(default=None, description="job that it is a remix of")
    width: int = Field(description="pixels")
    height: int = Field(description="pixels")
    num_frames: int = Field(description="frames")
    fps: float = Field(description="frames per second")
    seed: int | None = Field(description="that makes it the same again")
    pipeline: str | None = Field(description="how it is sampled")
    stage: str | None = Field(default=None, description="where it is at work, or was last")
    step: int = Field(default=0, description="denoising steps of the stage that are done")
    steps: int = Field(default=0, description="all of them; 0 where the stage has none")
    position: int | None = Field(default=None, description="queued jobs that go before it")
    eta_s: float | None = Field(
        default=None, description="seconds until it is done, as far as that can be told"
    )
    preview: int = Field(
        default=0, description="grows with each new picture at /preview; 0 while there is none"
    )
    attempt: int = Field(description="which try this is, from 1")
    cancelling: bool = Field(default=False, description="whether it is about to stop")
    priority: Priority = Field(description="its class in the queue")
    tags: Mapping[str, str] = Field(description="the client's own names and values")
    notes: tuple[str, ...] = Field(description="what is otherwise than the client may expect")
    written_prompt: str | None = Field(
        default=None, description="prompt that was written out from the client's"
    )
    request: Mapping[str, JsonValue] = Field(
        description="what was asked for; files are named by where the service keeps them"
    )
    token: str | None = Field(
        default=None,
        description="for ?token= of its content, events and preview, where players cannot send a "
        "key; good for an hour, and there only if the service needs keys",
    )


class VideoList(Answer):
    """Some jobs in order."""

    object: Literal["list"] = Field(default="list", description="what this is")
    data: tuple[VideoObject, ...] = Field(description="the jobs")
    first_id: str | None = Field(description="name of the first of them")
    last_id: str | None = Field(description="name of the last, to ask for what comes after it")
    has_more: bool = Field(description="whether there are further ones after the last")


class VideoDeleted(Answer):
    """A job and its files are gone."""

    id: str = Field(description="name of the job")
    object: Literal["video.deleted"] = Field(default="video.deleted", description="what this is")
    deleted: bool = Field(default=True, description="whether it is gone")


class MadeImage(Answer):
    """One picture."""

    b64_json: str | None = Field(default=None, description="the PNG file in base64")
    url: str | None = Field(default=None, description="where the PNG file can be fetched")
    revised_prompt: str | None = Field(
        default=None, description="prompt that was written out from the client's"
    )
    id: str = Field(description="name of its job")
    seed: int | None = Field(description="that makes it the same again")


class ImageList(Answer):
    """Pictures that were made."""

    created: int = Field(description="when they were asked for, in seconds since 1970")
    data: tuple[MadeImage, ...] = Field(description="the pictures")
    output_format: Literal["png"] = Field(default="png", description="their format")
    size: str = Field(description="WIDTHxHEIGHT in pixels")


class ModelObject(Answer):
    """The model, or an adapter of it."""

    id: str = Field(description="name that requests say")
    object: Literal["model"] = Field(default="model", description="what this is")
    created: int = Field(description="when the service learned of it, in seconds since 1970")
    owned_by: str = Field(description="who serves it")
    parent: str | None = Field(default=None, description="of an adapter: the model it belongs to")
    size: str | None = Field(
        default=None, description="of the model: width and height of a clip that asks for none"
    )
    seconds: float | None = Field(
        default=None, description="of the model: length of a clip that asks for none"
    )


class ModelList(Answer):
    """What requests can ask for."""

    object: Literal["list"] = Field(default="list", description="what this is")
    data: tuple[ModelObject, ...] = Field(description="the model, then its adapters")


class ErrorDetail(Answer):
    """What is wrong."""

    message: str = Field(description="what was expected, what came, and what to do")
    type: str = Field(description="class of the error, by whose fault it is")
    param: str | None = Field(default=None, description="field or parameter that is at fault")
    code: str | None = Field(default=None, description="what happened, for programs")


class ErrorBody(Answer):
    """Answer to a request that was not met."""

    error: ErrorDetail = Field(description="what is wrong")


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = Field(default="ok", description="that it does")


class PoolHealth(Answer):
    """One pool of actors."""

    status: Literal["ready", "asleep", "starting"] = Field(
        description="whether it has actors; asleep: it gets some as soon as there is work"
    )
    replicas: int = Field(description="actors that are ready")
    jobs: int = Field(description="jobs that wait or run, and still need it")
    waiting_s: float = Field(description="seconds of its work in jobs that wait")
    running_s: float = Field(description="seconds of its work that is left of running jobs")


class Readiness(Answer):
    """Whether jobs are worked on."""

    status: Literal["ready", "not_ready"] = Field(description="whether all parts are there")
    database: bool = Field(description="whether the database answers")
    dispatcher: bool = Field(description="whether the dispatcher gave a sign of life lately")
    queued: int | None = Field(default=None, description="jobs that wait")
    running: int | None = Field(default=None, description="jobs that run")
    pools: Mapping[str, PoolHealth] = Field(description="pools of actors by name")


class Failed(Answer):
    """Why a job failed, as an event."""

    error: JobError = Field(description="what went wrong")


class Queued(Answer):
    """A job waits, as an event."""

    position: int = Field(description="queued jobs that go before it")
    eta_s: float | None = Field(default=None, description="seconds until it is done, if known")


class Running(Answer):
    """A job is at work, as an event."""

    stage: str = Field(description="where it is at work")
    step: int = Field(description="denoising steps of the stage that are done")
    steps: int = Field(description="all of them; 0 where the stage has none")
    eta_s: float | None = Field(default=None, description="seconds until it is done, if known")
    progress: int = Field(ge=0, le=100, description="percent of its work that is done")
    preview: int = Field(
        default=0, description="grows with each new picture at /preview; 0 while there is none"
    )


class Written(Answer):
    """A prompt was written out, as an event."""

    prompt: str = Field(description="the prompt that is rendered")


class Done(Answer):
    """A job is done, as an event."""

    video: VideoObject = Field(description="the job")


class Cancelled(Answer):
    """A job was cancelled, as an event."""


Event = Queued | Running | Written | Done | Failed | Cancelled
