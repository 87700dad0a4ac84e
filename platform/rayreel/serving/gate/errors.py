"""Errors as clients of OpenAI's API read them."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

_KINDS = {403: "permission_error", 429: "rate_limit_error"}


def error_body(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The JSON of an error.

    Args:
        status: HTTP status, which the error's type follows from.
        message: What was expected, what came, and what to do.
        code: Name of what is wrong, for programs.
        param: Field of the request that is wrong.
    """
    kind = "server_error" if status >= 500 else _KINDS.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as a response; see :func:`error_body`."""
    body = error_body(status, message, code=code, param=param)
    return JSONResponse(body, status, headers=dict(headers or {}))
