"""Bodies of requests: JSON, or a form with files."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from rayreel.config.load import faults
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.serving.api.errors import ApiError, invalid

M = TypeVar("M", bound=BaseModel)

_MOST_FILES, _MOST_FIELDS = 32, 256
_FIELD_BYTES = 2 * 2**20
_BLOCK = 2**20
# Part of a form that says all of a request in JSON.
_ALL = "request"


@dataclass(frozen=True, slots=True)
class Body:
    """What a client sent.

    Attributes:
        fields: Of the request.
        parts: Files by name; ``upload://NAME`` in the fields means one of them.
        digest: Hash of all of it.
    """

    fields: dict[str, Any]
    parts: Mapping[str, UploadFile]
    digest: str

    def parse(self, kind: type[M]) -> M:
        """The request; raises ``ApiError`` that names what is wrong with it."""
        try:
            return kind.model_validate(self.fields)
        except ValidationError as error:
            raise invalid(faults(error, kind)) from error


@asynccontextmanager
async def body_of(request: Request) -> AsyncIterator[Body]:
    """Read the body of a request; its files are there within the context.

    Raises:
        ApiError: If it is neither JSON nor a form, or is malformed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = await asyncio.to_thread(_json, await request.body(), "the body")
        yield Body(fields, {}, await asyncio.to_thread(_digest, fields, {}))
        return
    if kind != "multipart/form-data":
        raise ApiError(
            415,
            f"expected Content-Type application/json or multipart/form-data, got {kind[:100]!r}",
            code="unsupported_media_type",
        )
    form = request.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES)
    async with form as read:
        fields, parts = await asyncio.to_thread(_of_form, read)
        yield Body(fields, parts, await asyncio.to_thread(_digest, fields, parts))


def _json(data: bytes | str, what: str) -> dict[str, Any]:
    def constant(name: str) -> float:
        raise ValueError(f"{name} is no number of JSON")

    try:
        value = json.loads(data, parse_constant=constant)
        texts = list(_texts(value))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"{what} is not JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(
            400,
            f"{what} should be a JSON object of fields, got {type(value).__name__}",
            code="invalid_json",
        )
    check_texts(texts)
    return value


def check_texts(texts: list[str]) -> None:
    """Refuse what no database and no file holds; raises ``ApiError``."""
    for text in texts:
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ApiError(
                400,
                "expected texts without NUL and without halves of surrogate pairs",
                code="invalid_text",
            )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _of_form(form: FormData) -> tuple[dict[str, Any], dict[str, UploadFile]]:
    said: dict[str, Any] = {}
    all_of_it: dict[str, Any] = {}
    parts: dict[str, UploadFile] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name in parts:
                raise _twice(name, "give each file a name, and say upload://NAME in the request")
            parts[name] = value
        elif name == _ALL:
            all_of_it |= _json(value, f"field {_ALL!r}")
        else:
            _say(said, name, value)
    check_texts([*_texts(said), *parts])
    if both := said.keys() & all_of_it.keys():
        raise _twice(min(both), f"say it as a field of the form, or within {_ALL!r}")
    fields = all_of_it | said
    _place_parts(fields, parts)
    return fields, parts


def _say(said: dict[str, Any], name: str, value: str) -> None:
    """A field of a form; OpenAI's clients write ``tags[shot]`` and ``sigmas[]`` for inner ones."""
    outer, bracket, inner = name.partition("[")
    if not bracket:
        if name in said:
            raise _twice(name, "expected one value")
        said[name] = value
    elif inner == "]" and isinstance(said.setdefault(outer, []), list):
        said[outer].append(value)
    elif inner.count("]") == 1 and isinstance(said.setdefault(outer, {}), dict):
        said[outer][inner.removesuffix("]")] = value
    else:
        raise ApiError(
            400,
            f"field {name!r}: expected NAME, NAME[] or NAME[KEY]; whatever is deeper is said in "
            f"JSON, in a field {_ALL!r}",
            code="invalid_value",
            param=name,
        )


def _twice(name: str, what: str) -> ApiError:
    return ApiError(400, f"field {name!r} came twice; {what}", code="invalid_value", param=name)


def _place_parts(fields: dict[str, Any], parts: Mapping[str, UploadFile]) -> None:
    """Say what files are for that have names of their own, unless the request says so itself."""
    for name in parts:
        source = f"upload://{name}"
        if source in _texts(fields):
            continue
        if name == "input_reference" and not fields.get(name):
            fields[name] = {"image_url": source}
        elif name == "image":
            images = fields.get("images") or []
            if isinstance(images, list):
                fields["images"] = [{"path": source, "frame": 0}, *images]
        elif name in ("video", "audio"):
            outer = "soundtrack" if name == "audio" else "extend"
            if name == "video" and fields.get("retake"):
                outer = "retake"
            given = fields.get(outer) or {}
            if isinstance(given, dict):
                fields[outer] = {**given, "path": source}
        else:
            raise ApiError(
                400,
                f"file {name!r} is used nowhere; expected a name among input_reference, image, "
                f"video and audio, or {source} somewhere in the request",
                code="invalid_value",
                param=name,
            )


def _digest(fields: dict[str, Any], parts: Mapping[str, UploadFile]) -> str:
    try:
        said = canonical_json(fields)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    files: list[str] = []
    for name, part in sorted(parts.items()):
        digest = hashlib.sha256()
        while block := part.file.read(_BLOCK):
            digest.update(block)
        part.file.seek(0)
        files += (name, digest.hexdigest())
    return content_hash(said, *files)
