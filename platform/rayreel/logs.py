"""Logging setup, called by entry points and by the workers that they start."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

_CONTEXT: ContextVar[Mapping[str, Any]] = ContextVar(
    "rayreel_log_context", default=MappingProxyType({})
)

_HIDDEN = "***"
# Of the environment; what is shorter would hide ordinary words.
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|API_?KEY|ACCESS_KEY")
_LEAST_SECRET = 8
# What storage clients and HTTP errors repeat: the login of a URL, a signed query, a header.
_SECRET_TEXTS = [
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(
        r"(?i)(?<=[?&])(x-amz-signature|x-amz-security-token|x-amz-credential|sig)=[^&\s\"']+"
    ),
    re.compile(r"(?i)\bbearer\s+[\w.~+/=-]+"),
]


@dataclass(frozen=True)
class LogSettings:
    """How a process logs; small enough to send to every worker.

    Attributes:
        level: Threshold as a number or a name such as ``"DEBUG"``.
        json: Whether each line is a JSON object.
    """

    level: int | str = "WARNING"
    json: bool = False


_settings = LogSettings()

CHATTY = ("torchao", "torch.utils._pytree")
"""Loggers that only errors are heard of.

Where torchao is installed, whoever imports transformers or peft is told which kernels it could not
load, and how PyTorch registers its classes.
"""


def setup_logging(level: int | str = logging.INFO, *, json: bool = False) -> None:
    """Send log lines to stderr, with time, level and what ``log_context`` says.

    Workers of a cluster call it with the ``log_settings`` of the process that started them; Ray
    keeps what they write in a file of each. Values of the environment that are secret by their
    name, and logins in URLs, are hidden.

    Args:
        level: Threshold as a number or a name such as ``"DEBUG"``.
        json: Whether each line is a JSON object with ``time``, ``level``, ``logger``, ``message``,
            and ``run`` and ``items`` where they are known.
    """
    global _settings  # noqa: PLW0603 - a process has one standard error
    _settings = LogSettings(level, json)
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if not isinstance(one, _StderrHandler)]
    handler = _StderrHandler()
    handler.setFormatter(_Hiding(_json_lines() if json else _Lines(), _secrets()))
    handler.addFilter(_with_context)
    root.addHandler(handler)
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


def log_settings() -> LogSettings:
    """How this process logs, for those that it starts."""
    return _settings


@contextmanager
def log_context(*, run: str | None = None, items: Sequence[str] = ()) -> Iterator[None]:
    """Say in every line that is logged within to which run and items it belongs.

    Args:
        run: Id of the run; by default that of the context around.
        items: Ids of the items that are worked on; by default those of the context around.
    """
    said = {"run": run, "items": [*items]}
    token = _CONTEXT.set({**_CONTEXT.get(), **{key: value for key, value in said.items() if value}})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that moment: progress bars and tests replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Lines(logging.Formatter):
    """Lines for people; the ids stand at the end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        run, items = getattr(record, "run", None), getattr(record, "items", ())
        ids = [*([f"run {run}"] if run else []), *([f"item {', '.join(items)}"] if items else [])]
        return super().formatMessage(record) + (f" [{', '.join(ids)}]" if ids else "")


class _Hiding(logging.Formatter):
    """What another formatter writes, without secrets."""

    def __init__(self, inner: logging.Formatter, secrets: Sequence[str]) -> None:
        super().__init__()
        self._inner = inner
        self._secrets = [re.compile(re.escape(secret)) for secret in secrets]

    def format(self, record: logging.LogRecord) -> str:
        line = self._inner.format(record)
        for secret in (*self._secrets, *_SECRET_TEXTS):
            line = secret.sub(_HIDDEN, line)
        return line


def _json_lines() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
    )


def _secrets() -> list[str]:
    return [
        value
        for name, value in os.environ.items()
        if _SECRET_NAMES.search(name.upper()) and len(value) >= _LEAST_SECRET
    ]


def _with_context(record: logging.LogRecord) -> bool:
    for key, value in _CONTEXT.get().items():
        setattr(record, key, value)
    return True
