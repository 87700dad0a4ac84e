"""Reads specs, and turns what is wrong with them into sentences."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rayreel.errors import SpecError

S = TypeVar("S", bound=BaseModel)


def load_spec(path: Path, kind: type[S], overrides: Iterable[str] = ()) -> S:
    """Read a YAML spec.

    Args:
        path: The file.
        kind: What it must be.
        overrides: ``key=value`` texts, keys dotted, values in YAML; they win over the file.

    Raises:
        SpecError: Naming every wrong field, and the nearest known one for a misspelt field.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SpecError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(values, dict):
        raise SpecError(f"{path}: expected a mapping of fields, got {type(values).__name__}")
    return parse(values, kind, where=str(path), overrides=overrides)


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
    """One sentence per fault: the field, what was expected, what came."""
    return [_sentence(dict(fault), kind) for fault in error.errors()]


def _sentence(fault: dict[str, Any], kind: type[BaseModel]) -> str:
    path = [str(part) for part in fault["loc"]]
    field = ".".join(path)
    if fault["type"] == "extra_forbidden":
        known = _fields_of(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"nearest is {near[0]!r}" if near else f"known are {', '.join(known)}"
        return f"field {field!r}: unknown; {hint}"
    if fault["type"] == "missing":
        return f"field {field!r}: required"
    message = str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"field {field!r}: {message}{shown}"


def _fields_of(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Fields that are known where ``path`` leads; those of the whole where it cannot be told."""
    for part in path:
        if part in kind.model_fields:
            inner = _models_in(kind.model_fields[part].annotation)
            if inner:
                kind = inner[0]
    return list(kind.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _set(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {text!r}: expected key=value, such as --set defaults.steps=8")
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.get(parent)
        values[parent] = dict(inner) if isinstance(inner, dict) else {}
        values = values[parent]
    try:
        values[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {text!r}: the value is not YAML: {error}") from error
