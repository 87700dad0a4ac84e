"""Signs of life: work that takes long tells between its steps that it goes on."""

from collections.abc import Callable

_listeners: list[Callable[[], None]] = []


def listen(listener: Callable[[], None]) -> None:
    """Have a function called at each sign of life of this process, in place of the one before."""
    _listeners[:] = [listener]


def alive() -> None:
    """Give a sign of life."""
    for listener in _listeners:
        listener()
