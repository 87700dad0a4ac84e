"""Parts of files over HTTP, by RFC 9110: ranges, and versions that a client has already."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import closing

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from rayreel.media.files import open_file
from rayreel.serving.api.errors import ApiError

_CHUNK = 2**18
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte, and the one after the last, that a ``Range`` header asks for.

    Args:
        header: The header.
        size: Of the file.

    Returns:
        ``None`` for all of the file: without a range, for several at once, and for what is none,
        all of which a server may take so.

    Raises:
        ApiError: If the range is outside the file.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise ApiError(
            416,
            f"expected a range within the {size} bytes of the file",
            code="range_not_satisfiable",
            param="Range",
            headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
        )
    return start, stop


def has_it(request: Request, tag: str) -> bool:
    """Whether a client has a version already, by its ``If-None-Match``."""
    said = request.headers.get("if-none-match", "")
    tags = [one.strip().removeprefix("W/") for one in said.split(",")]
    return tag in tags or tags == ["*"]


def file_response(
    request: Request, source: str, *, size: int, tag: str, headers: Mapping[str, str]
) -> Response:
    """A file, or the part of it that is asked for.

    Args:
        request: ``GET`` or ``HEAD``.
        source: Path or URI of the file.
        size: Its bytes.
        tag: Its entity tag, in quotes.
        headers: Further ones, such as the type.

    Raises:
        ApiError: If the range is outside the file.
    """
    common = {**headers, "ETag": tag, "Accept-Ranges": "bytes"}
    if has_it(request, tag):
        return Response(status_code=304, headers=common)
    unchanged = request.headers.get("if-range", tag) == tag
    part = wanted_range(request.headers.get("range"), size) if unchanged else None
    start, stop = part or (0, size)
    common["Content-Length"] = str(stop - start)
    if part:
        common["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=common)
    return StreamingResponse(_bytes(source, start, stop), status, headers=common)


async def _bytes(source: str, start: int, stop: int) -> AsyncIterator[bytes]:
    with closing(await run_in_threadpool(open_file, source)) as file:
        await run_in_threadpool(file.seek, start)
        while start < stop:
            chunk = await run_in_threadpool(file.read, min(_CHUNK, stop - start))
            if not chunk:
                raise OSError(f"{source} became shorter while it was read")
            start += len(chunk)
            yield chunk
