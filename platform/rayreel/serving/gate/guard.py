"""ASGI middleware: nothing reaches the API without a key, from a strange site, or without end."""

import asyncio
import ipaddress
import logging
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayreel.config.serving import UploadSpec
from rayreel.errors import StorageError
from rayreel.serving.gate.auth import Auth, Caller
from rayreel.serving.gate.errors import error_response

logger = logging.getLogger(__name__)

FORM_BYTES = 2 * 2**20
"""Of a form, besides its files."""

JSON_BYTES = 32 * 2**20
"""Of any other body, which is read into memory."""

RETRY_S = 5

_SIGNED = re.compile(r"/v1/videos/[^/]+/(content|events|preview)")
_PROBES = ("/healthz", "/readyz")
_PORTS = {"http": 80, "https": 443}


class Guard:
    """Lets in what may come in, and says in OpenAI's error shape why the rest may not.

    It stands in front of all routes, so that a new one below ``/v1`` needs a key without asking for
    it. Who a request comes from is read with :func:`caller_of`.
    """

    def __init__(self, app: ASGIApp, auth: Auth, limits: UploadSpec) -> None:
        self._app = app
        self._auth = auth
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._strange(scope, headers) or await self._identify(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await _Limited(self._app, body_limit(headers, self._limits))(scope, receive, send)

    def _strange(self, scope: Scope, headers: Headers) -> Response | None:
        """Without keys, a browser is told apart from its visitor by where the page comes from."""
        if self._auth.required or _below_root(scope) in _PROBES:
            return None
        host = headers.get("host", "")
        if not self._auth.any_host and not is_loopback(host):
            return error_response(
                403,
                f"this service needs no key, so it answers to names of the loopback address only, "
                f"such as localhost; not to {host[:100]!r}",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and not _is_own(origin, host):
            return error_response(
                403,
                f"pages of other sites may not use this service, and {origin[:100]!r} is not "
                f"{host[:100]!r}",
                code="origin_not_allowed",
            )
        return None

    async def _identify(self, scope: Scope, headers: Headers) -> Response | None:
        """Note who it is, or say that nobody may come in without a key."""
        state = scope.setdefault("state", {})
        state["caller"] = Caller(owner="" if not self._auth.required else None)
        path = _below_root(scope)
        if not self._auth.required or not (path == "/v1" or path.startswith("/v1/")):
            return None
        shown = headers.get("authorization")
        if shown is None and scope["method"] in ("GET", "HEAD") and _SIGNED.fullmatch(path):
            token = QueryParams(scope["query_string"]).get("token")
            if token is not None:
                state["caller"] = Caller(owner=None, token=token)
                return None
        try:
            owner = await asyncio.to_thread(self._auth.owner, shown)
        except StorageError:
            logger.warning("keys cannot be looked up", exc_info=True)
            return error_response(
                503,
                "the database does not answer; try again soon",
                code="database_unavailable",
                headers={"Retry-After": str(RETRY_S)},
            )
        if owner is None:
            return error_response(
                401,
                "expected a valid API key in the header Authorization: Bearer rr_...; "
                + ("none came" if shown is None else "what came is not one"),
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        state["caller"] = Caller(owner=owner)
        return None


class _Limited:
    """An application that gets no more than so many bytes of a body."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = error_response(
            413,
            f"the body has more than {self._limit} bytes, which is the limit for its type; send "
            "files as parts of multipart/form-data",
            code="body_too_large",
            # The rest of the body is not read.
            headers={"Connection": "close"},
        )
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._limit):
            await refusal(scope, receive, send)
            return
        num_bytes, too_large, started = 0, False, False

        async def counted() -> Message:
            nonlocal num_bytes, too_large
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._limit:
                too_large = True
                # Of a class that FastAPI lets through from wherever it reads bodies.
                raise HTTPException(413)
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            # Whatever the application makes of it, the answer is the one below.
            if started or not too_large:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, answer)
        except HTTPException:
            if not too_large:
                raise
        if too_large and not started:
            await refusal(scope, receive, send)


def caller_of(request: Request) -> Caller:
    """Who a request comes from, as the guard has noted."""
    caller = request.state.caller
    assert isinstance(caller, Caller), "every request passes the guard"
    return caller


def body_limit(headers: Mapping[str, str], limits: UploadSpec) -> int:
    """Most bytes of a body of its type."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return limits.max_bytes + FORM_BYTES
    # Base64 makes four bytes of three.
    return min(JSON_BYTES, limits.max_bytes * 4 // 3 + FORM_BYTES)


def is_loopback(host: str) -> bool:
    """Whether a ``Host`` header names this machine to itself."""
    name, _ = _host_and_port(host, "http")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _below_root(scope: Scope) -> str:
    """The path as routes see it, if the application is served below another one."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _is_own(origin: str, host: str) -> bool:
    scheme, _, place = origin.partition("://")
    if scheme not in _PORTS:
        return False
    return _host_and_port(place, scheme) == _host_and_port(host, scheme) != ("", 0)


def _host_and_port(host: str, scheme: str) -> tuple[str, int]:
    """Name in small letters and port of ``name:port``; an empty name for what is neither."""
    if not re.fullmatch(r"[A-Za-z0-9.:_\[\]-]+", host):
        return "", 0
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname or "", parts.port or _PORTS[scheme]
    except ValueError:
        return "", 0
