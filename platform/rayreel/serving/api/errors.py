"""Errors of all kinds, as answers in OpenAI's shape."""

import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rayreel.errors import StorageError
from rayreel.serving.gate import FileRefused, error_response
from rayreel.serving.planning import RequestRefused
from rayreel.serving.store import KeyReused, QueueFull

RETRY_S = 5
"""After how long a client may ask again where a part of the service did not answer."""

E = TypeVar("E", bound=Exception)

_FAULT = re.compile(r"field '([^']+)': ")


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: Of HTTP.
        code: What happened, for programs.
        param: Field or parameter that is at fault.
        headers: Further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers


def conflict(message: str, *, code: str) -> ApiError:
    """Something that goes no other way as long as the job is as it is."""
    # OpenAI's clients would try it again.
    return ApiError(409, message, code=code, headers={"x-should-retry": "false"})


def invalid(lines: list[str]) -> ApiError:
    """The error for faults of a body as ``config.load`` says them, a sentence each."""
    fields = [found[1].rstrip(".") for line in lines if (found := _FAULT.match(line))]
    return ApiError(400, "; ".join(lines), code="invalid_value", param=next(iter(fields), None))


def full(error: QueueFull, seconds_per_job: float) -> ApiError:
    """The error for a queue that takes no more; a place is free after about a job's time."""
    retry = {"Retry-After": str(min(max(math.ceil(seconds_per_job), 1), 120))}
    return ApiError(429, str(error), code="queue_full", headers=retry)


def add_handlers(app: FastAPI, refused: Callable[[str], None]) -> None:
    """Have an application answer every error in this shape.

    Args:
        app: The application.
        refused: Hears the code of each answer that says to come back later.
    """

    def add(kind: type[E], tell: Callable[[E], ApiError]) -> None:
        async def handle(_: Request, error: Exception) -> Response:
            assert isinstance(error, kind)
            told = tell(error)
            if "Retry-After" in (told.headers or {}):
                refused(told.code)
            return error_response(
                told.status, str(told), code=told.code, param=told.param, headers=told.headers
            )

        app.add_exception_handler(kind, handle)

    add(ApiError, lambda error: error)
    add(RequestRefused, _refused)
    add(FileRefused, _refused_file)
    add(KeyReused, lambda error: conflict(str(error), code="idempotency_key_reused"))
    add(StorageError, _no_answer)
    add(RequestValidationError, _parameter)
    add(HTTPException, _of_http)


def _refused(error: RequestRefused) -> ApiError:
    return invalid(
        [
            f"field {one.field!r}: {one.message}" if one.field else one.message
            for one in error.faults
        ]
    )


def _refused_file(error: FileRefused) -> ApiError:
    message = f"field {error.field!r}: {error.message}"
    return ApiError(error.status, message, code="invalid_file", param=error.field)


def _no_answer(_: StorageError) -> ApiError:
    return ApiError(
        503,
        "a part of the service does not answer; nothing is lost, try again soon",
        code="storage_unavailable",
        headers={"Retry-After": str(RETRY_S)},
    )


def _of_http(error: HTTPException) -> ApiError:
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return ApiError(error.status_code, error.detail, code=code, headers=error.headers)


def _parameter(error: RequestValidationError) -> ApiError:
    """Of a path, a query or a header: bodies are validated elsewhere."""
    first = error.errors()[0]
    # Where it comes from, and its name; then where in a list.
    name = str(first["loc"][1])
    said = first["msg"].replace("Input should", "should", 1)
    return ApiError(400, f"parameter {name!r} {said}", code="invalid_value", param=name)
