"""Reads specs, and turns what is wrong with them into sentences."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rayreel.errors import SpecError

S = TypeVar("S", bound=BaseModel)

# In the words of YAML and JSON, where pydantic's are those of Python.
_PHRASES = {
    "model_type": "should be a mapping of fields",
    "model_attributes_type": "should be a mapping of fields",
    "dict_type": "should be a mapping",
    "tuple_type": "should be a list",
    "invalid_key": "keys should be text",
}
# A union's tag that is none of its branches, or is not there.
_TAG_FAULTS = {"union_tag_invalid", "union_tag_not_found"}
_LONGEST_SHOWN = 60


def load_spec(path: Path, kind: type[S], overrides: Iterable[str] = ()) -> S:
    """Read a YAML spec.

    Args:
        path: The file.
        kind: What it must be.
        overrides: ``key=value`` texts, keys dotted, values in YAML; they win over the file.

    Raises:
        SpecError: Naming every wrong field, and the nearest known one for a misspelt field.
    """
    return parse(read_mapping(path), kind, where=str(path), overrides=overrides)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping; raises ``SpecError``."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SpecError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path} is not readable YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise SpecError(f"{path}: expected a mapping of fields, got {type(values).__name__}")
    return values


def parse(
    values: Mapping[str, Any], kind: type[S], *, where: str, overrides: Iterable[str] = ()
) -> S:
    """Validate a mapping; raises ``SpecError`` as ``load_spec`` does, naming ``where``."""
    merged: dict[str, Any] = dict(values)
    for text in overrides:
        _set(merged, text)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise SpecError("\n".join(f"{where}: {line}" for line in faults(error, kind))) from error


def faults(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    """One sentence per wrong field: which it is, what was expected, what came."""
    found: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in error.errors():
        path, model = _walk(fault, kind)
        field = ".".join(path)
        found.setdefault(field, []).append(_expectation(fault, model))
        given[field] = _given(fault)
    # A union faults in every branch: the one that was meant is that with the deepest fault.
    meant = [field for field in found if not any(other.startswith(f"{field}.") for other in found)]
    return [
        (f"field {field!r}: " if field else "") + " or ".join(found[field]) + given[field]
        for field in meant
    ]


def _walk(fault: ErrorDetails, kind: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Keys that lead to a fault as a person wrote them, and the last model on the way.

    Pydantic's own path also names the branches of unions; these are left out.
    """
    path: list[str] = []
    in_mapping = False
    branches: list[type[BaseModel]] = []
    for part in fault["loc"]:
        if branch := next((one for one in branches if _is_branch(one, part)), None):
            kind, branches = branch, []
            continue
        field = kind.model_fields.get(str(part))
        if field or in_mapping or isinstance(part, int) or part == _unknown_field(fault):
            path.append(str(part))
        in_mapping = field is not None and get_origin(field.annotation) is dict
        if field:
            models = _models_in(field.annotation)
            kind, branches = next(iter(models), kind), models[1:] and models
    return path, kind


def _is_branch(kind: type[BaseModel], part: int | str) -> bool:
    """Whether pydantic calls a branch of a union so: by the model's tag, or by its name."""
    literals = [f.annotation for f in kind.model_fields.values()]
    tags = [tag for one in literals if get_origin(one) is Literal for tag in get_args(one)]
    return part in tags or part == kind.__name__


def _expectation(fault: ErrorDetails, model: type[BaseModel]) -> str:
    if unknown := _unknown_field(fault):
        known = list(model.model_fields)
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        return f"unknown; nearest is {near[0]!r}" if near else f"unknown; known: {', '.join(known)}"
    if fault["type"] == "missing":
        return "required"
    if fault["type"] in _TAG_FAULTS:
        tag = str(fault["ctx"]["discriminator"])
        tags = fault["ctx"].get("expected_tags")
        return f"{tag} should be one of {tags}" if tags else f"{tag} is required"
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    return _PHRASES.get(fault["type"], message)


def _given(fault: ErrorDetails) -> str:
    """What came, where that helps: short, since prompts can be long."""
    if fault["type"] in {"extra_forbidden", "missing"}:
        return ""
    value = fault["input"]
    if fault["type"] == "union_tag_invalid":
        value = fault["ctx"]["tag"]
    if isinstance(value, dict | list | tuple):
        kind = "mapping" if isinstance(value, dict) else "list"
        return "" if fault["type"] == "value_error" else f", got a {kind}"
    text = repr(value)
    return f", got {text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + '...'}"


def _unknown_field(fault: ErrorDetails) -> str | None:
    return str(fault["loc"][-1]) if fault["type"] == "extra_forbidden" else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _set(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise SpecError(f"--set {text!r}: expected key=value, such as --set defaults.steps=8")
    for parent in parents:
        inner = values.get(parent)
        values[parent] = dict(inner) if isinstance(inner, dict) else {}
        values = values[parent]
    try:
        values[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {text!r}: the value is not YAML: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
