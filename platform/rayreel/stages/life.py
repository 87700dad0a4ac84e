"""Signs of life: work that takes long tells between its steps that it goes on, and how far."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sign:
    """What a sign of life tells.

    Attributes:
        phase: Denoising run, such as ``stage1``; empty where it is none.
        step: Steps of it that are done.
        steps: All of them.
        pictures: Small WebP pictures of what is being made, with the items that they are of.
    """

    phase: str = ""
    step: int = 0
    steps: int = 0
    pictures: tuple[tuple[str, bytes], ...] = ()


_listeners: list[Callable[[Sign], None]] = []


def listen(listener: Callable[[Sign], None]) -> None:
    """Have a function called at each sign of life of this process, in place of the one before.

    One that raises ``Cancelled`` stops the work there.
    """
    _listeners[:] = [listener]


def alive(sign: Sign = Sign()) -> None:
    """Give a sign of life."""
    for listener in _listeners:
        listener(sign)
