"""Doing the same to both streams, either of which may be absent."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Pair = tuple[T | None, T | None]
"""One value per stream, video before audio; ``None`` where the stream is absent."""


def per_stream(function: Callable[..., R], *pairs: Pair[Any]) -> Pair[R]:
    """``function`` of what the pairs hold for video, and for audio; ``None`` for absent streams."""
    video, audio = (
        None if any(value is None for value in values) else function(*values)
        for values in zip(*pairs, strict=True)
    )
    return video, audio
