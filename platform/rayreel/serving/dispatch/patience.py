"""Waiting for a store that does not answer, ever less often."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from rayreel.errors import StorageError

_FIRST_S, _MOST_S = 0.2, 5.0

T = TypeVar("T")
log = logging.getLogger(__name__)


def pauses() -> Iterator[float]:
    """Seconds to wait before each further try."""
    pause = _FIRST_S
    while True:
        yield pause
        pause = min(2 * pause, _MOST_S)


async def until_answered(call: Callable[[], T]) -> T:
    """What a call of the store returns, in a thread, as soon as the store answers."""
    for pause in pauses():
        try:
            return await asyncio.to_thread(call)
        except StorageError as error:
            log.warning("the store does not answer, trying again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
    raise AssertionError("pauses never end")
