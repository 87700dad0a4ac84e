"""The API's description for programs: bodies that are read by hand, and errors, in it too."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from rayreel.config.serving_api import ErrorBody, ImageRequest, RemixRequest, VideoRequest

ABOUT = """Clips with sound, made on Ray from words, pictures, videos and sounds.

Names and shapes are those of OpenAI's API for videos. A clip is a job: ask for it, follow its
events or look at it now and then, and fetch its content when it is completed."""

_BODIES: tuple[type[BaseModel], ...] = (VideoRequest, ImageRequest, RemixRequest)
_REFERENCE = "#/components/schemas/"
_FILE = (
    "upload://NAME for the file of that name in a form, a data: URI, or an https address of a host "
    "that the service allows"
)
# What these fields mean where people write files of their own is otherwise here.
_HERE: dict[tuple[str, str], str] = {
    ("ImageCondition", "path"): _FILE,
    ("VideoReference", "path"): _FILE,
    ("VideoReference", "mask"): f"grey video or image, white where the reference counts: {_FILE}",
    ("Soundtrack", "path"): _FILE,
    ("Retake", "path"): f"video of 8k + 1 frames: {_FILE}",
    ("Extension", "path"): _FILE,
    ("Extension", "clip"): "or the id of a finished job",
    ("AdapterSpec", "path"): "name of an adapter in the library, see /v1/models",
}
_NOT_HERE = {("Extension", "run"), ("Extension", "latents")}


def takes(kind: type[BaseModel], *, form: bool = False) -> dict[str, Any]:
    """A route's extra that says what its body is.

    Args:
        kind: Its model.
        form: Whether files may come with it.
    """
    schema = {"$ref": f"{_REFERENCE}{kind.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if form:
        content["multipart/form-data"] = {"schema": {"$ref": f"{_REFERENCE}{kind.__name__}Form"}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> None:
    """Complete an application's OpenAPI document when it is first asked for."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual has it


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    kinds: tuple[type[BaseModel], ...] = (*_BODIES, ErrorBody)
    for kind in kinds:
        schema = kind.model_json_schema(ref_template=f"{_REFERENCE}{{model}}")
        schemas.update(schema.pop("$defs", {}))
        schemas[kind.__name__] = schema
    for (model, field), text in _HERE.items():
        schemas[model]["properties"][field]["description"] = text
    for model, field in _NOT_HERE:
        del schemas[model]["properties"][field]
    schemas["VideoRequestForm"] = _form(schemas["VideoRequest"])
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "an API key, rr_ and 43 characters, where the service needs keys",
        }
    }
    error = {"application/json": {"schema": {"$ref": f"{_REFERENCE}ErrorBody"}}}
    for path, operation in _operations(document):
        operation["responses"].pop("422", None)
        if path.startswith("/v1/"):
            operation["security"] = [{"key": []}, {}]
            operation["responses"]["default"] = {"description": "an error", "content": error}


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation


def _form(request: dict[str, Any]) -> dict[str, Any]:
    """A form says simple fields one by one, or all in one, and has files."""
    file = {"type": "string", "format": "binary"}
    files = {
        "input_reference": "picture that the first frame shows",
        "image": "the same",
        "video": "video to make longer, or to make a stretch of anew where retake says which",
        "audio": "sound to make a picture for",
    }
    simple = {
        name: field
        for name, field in request["properties"].items()
        if not _is_nested(field) and name not in files
    }
    about = {"type": "string", "description": "the fields of a VideoRequest in JSON"}
    return {
        "title": "VideoRequestForm",
        "type": "object",
        "description": "A clip to make, with files; those of other names are used where the "
        "request says upload://NAME.",
        "properties": {
            **simple,
            "request": about,
            **{name: {**file, "description": text} for name, text in files.items()},
        },
    }


def _is_nested(field: dict[str, Any]) -> bool:
    kinds = [field, *field.get("anyOf", ()), *field.get("allOf", ())]
    return any("$ref" in kind or kind.get("type") in ("array", "object") for kind in kinds)
