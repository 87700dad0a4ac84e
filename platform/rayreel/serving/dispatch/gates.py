"""How many batches are in a pool and in front of it, and who goes in next."""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable

from rayreel.serving.pools import Pool

Rank = tuple[float, str]
"""Whoever has the smallest goes in first: ``due`` and id of a job."""

_FIRST_REST_S, _MOST_REST_S = 0.5, 30.0

log = logging.getLogger(__name__)


class Place:
    """That somebody is in a room, until they leave it."""

    def __init__(self, room: "Room") -> None:
        self._room: Room | None = room

    def leave(self) -> None:
        """Make room; nothing happens the second time."""
        if self._room is not None:
            room, self._room = self._room, None
            room.left()


class Room:
    """Holds so many at a time; whoever waits for it goes in by rank."""

    def __init__(self, size: Callable[[], int], freed: Callable[[], None]) -> None:
        """Start empty.

        Args:
            size: How many it holds now.
            freed: Called when somebody left.
        """
        self._size, self._freed = size, freed
        self._inside = 0
        self._waiting: list[tuple[Rank, int, asyncio.Future[Place]]] = []
        self._numbers = itertools.count()

    @property
    def free(self) -> int:
        """How many more may go in now, besides those who wait."""
        waiting = sum(not future.done() for *_, future in self._waiting)
        return max(0, self._size() - self._inside - waiting)

    def take(self) -> Place:
        """A place in it, for whoever has seen that it is free."""
        self._inside += 1
        return Place(self)

    async def enter(self, rank: Rank) -> Place:
        """A place in it, once there is one and nobody with a smaller rank waits."""
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._numbers), future))
        self.look()
        try:
            return await future
        except asyncio.CancelledError:
            # It may have got its place in the same moment.
            if future.done() and not future.cancelled():
                future.result().leave()
            raise

    def look(self) -> None:
        """Let in who may go in; to be called when the room may have grown."""
        while self._waiting and (self._waiting[0][-1].done() or self._inside < self._size()):
            *_, future = heapq.heappop(self._waiting)
            if not future.done():
                self._inside += 1
                future.set_result(Place(self))

    def left(self) -> None:
        """Somebody is out; for ``Place`` alone."""
        self._inside -= 1
        self.look()
        self._freed()


class Gate:
    """The way into a pool: one batch waits in front, and as many are inside as there are actors.

    There is always one inside, as a pool without actors gets them when there is work. After a loss
    nobody goes in for a while, or a pool that cannot start would use up the tries of all jobs.

    Attributes:
        front: Where the next batch waits.
        inside: Where batches are at work, or single items if the pool takes these.
    """

    def __init__(self, pool: Pool, freed: Callable[[], None]) -> None:
        """Open it.

        Args:
            pool: Behind it.
            freed: Called when there may be room in it.
        """
        self.pool = pool
        self.front = Room(lambda: 1, lambda: None)
        self.inside = Room(self._slots, freed)
        self._freed = freed
        self._losses = 0
        self._resting = False

    @property
    def takes_items(self) -> bool:
        """Whether the pool works on the items of a batch one by one, in parallel."""
        return self.pool.stages == ("decode",)

    def answered(self) -> None:
        """The pool has done a batch."""
        self._losses = 0

    def lost(self) -> None:
        """The pool has lost a batch: let it rest, the longer the more often in a row."""
        if self._resting:
            return
        rest_s = min(_FIRST_REST_S * 2.0**self._losses, _MOST_REST_S)
        self._losses = min(self._losses + 1, 10)
        self._resting = True
        log.warning("pool %s lost a batch; it gets no other for %.1f s", self.pool.name, rest_s)
        asyncio.get_running_loop().call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self.inside.look()
        self._freed()

    def _slots(self) -> int:
        return 0 if self._resting else max(1, self.pool.replicas)
