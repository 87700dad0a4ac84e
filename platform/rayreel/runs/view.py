"""A run in the browser: a small read-only server for a run directory on disk or in a store."""

import logging
import mimetypes
import re
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus

import fsspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from rayreel.data.storage import Storage
from rayreel.errors import SpecError

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_PIECE = 2**20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# What the standard library does not know, or knows on some machines alone.
_TYPES = {
    ".js": "text/javascript",
    ".jsonl": "application/x-ndjson",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
    ".wav": "audio/wav",
}


def serve_run(uri: str, port: int, tell: Callable[[str], object]) -> None:
    """Serve a run to this machine's browsers until it is interrupted.

    Args:
        uri: The run directory: a folder or an fsspec URI.
        port: Where to listen on the loopback interface; 0 takes a free one.
        tell: Is given the address of the gallery once it can be opened.

    Raises:
        SpecError: If there is no gallery, or the port is taken.
    """
    storage = Storage(uri)
    if not storage.exists("index.html"):
        raise SpecError(
            f"{uri} has no index.html; expected the directory of a run, which has one when it ends"
        )
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise SpecError(
                f"cannot listen on port {port} ({error}); expected a free one, or 0"
            ) from error
        listener.listen()
        tell(f"http://{_HOST}:{listener.getsockname()[1]}/")
        server = uvicorn.Server(uvicorn.Config(make_app(storage), log_level="warning"))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            # How a person ends it.
            log.info("stopped serving %s", uri)


def make_app(storage: Storage) -> Starlette:
    """The files of a run over HTTP: GET and HEAD, whole or a range, and nothing else.

    Args:
        storage: The run directory.
    """

    async def serve(request: Request) -> Response:
        name = request.path_params["name"] or "index.html"
        return await run_in_threadpool(_respond, storage, name, request)

    return Starlette(
        routes=[Route("/{name:path}", serve, methods=["GET"])],
        # A page elsewhere whose name leads here must not read the run.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])],
    )


def _respond(storage: Storage, name: str, request: Request) -> Response:
    try:
        size = storage.size(name)
    except (FileNotFoundError, ValueError):
        text = f"there is no {name} in {storage.uri}\n"
        return PlainTextResponse(text, HTTPStatus.NOT_FOUND)
    headers = {
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
        "content-type": _media_type(name),
        "x-content-type-options": "nosniff",
    }
    span = _wanted(request.headers.get("range", ""), size)
    status = HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT
    start, end = span or (0, size)
    if start >= end and span:
        headers["content-range"] = f"bytes */{size}"
        return Response(None, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
    if span:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(None, status, headers)
    return StreamingResponse(_pieces(storage.join(name), start, end), status, headers)


def _wanted(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; ``None`` for the whole file.

    Several ranges at once, which players do not ask for, count as none, as a server may choose.
    """
    found = _RANGE.fullmatch(header)
    if not found or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _pieces(uri: str, start: int, end: int) -> Iterator[bytes]:
    file_system, path = fsspec.url_to_fs(uri)
    for at in range(start, end, _PIECE):
        yield file_system.cat_file(path, start=at, end=min(end, at + _PIECE))


def _media_type(name: str) -> str:
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    known = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{known}; charset=utf-8" if known.startswith("text/") else known
