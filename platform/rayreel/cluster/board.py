"""The board: who is at what, so that a worker that is lost or silent costs an item and not the run.

Workers tell it what they begin and end; it is the one that remembers what a process was at when it
died. Nothing is kept there that a run cannot do without: should the board itself be lost, it starts
anew and knows a little less.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)

Loss = Literal["alone", "with others"]
"""How an item was at work when its worker was lost: one that was alone is to blame."""

_ANSWER_S = 30.0


@dataclass(frozen=True)
class Post:
    """A worker, as the board knows it.

    Attributes:
        pool: What it belongs to.
        worker: Machine and process.
        handle: Of its actor.
        stage: Where it is; ``loading`` before it has begun anything.
        items: What it is at; empty while it waits for work.
        silent_s: Seconds since it last told anything.
    """

    pool: str
    worker: str
    handle: Any = field(repr=False)
    stage: str = "loading"
    items: tuple[str, ...] = ()
    silent_s: float = 0.0


class Board:
    """Talks to the board from any process; what cannot be told is not worth a failure."""

    def __init__(self) -> None:
        """Start the board on this process's node, where the driver is."""
        here = ray.get_runtime_context().get_node_id()
        options = {
            "num_cpus": 0,
            "max_restarts": -1,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True),
        }
        self._actor: Any = ray.remote(_Board).options(**options).remote()

    def started(self, pool: str, worker: str) -> int:
        """This actor is there; how often its pool has started one since it last ended an item."""
        actor = ray.get_runtime_context().current_actor
        return int(self._ask("started", _actor_id(), Post(pool, worker, actor)) or 0)

    def losses(self, pool: str, items: Sequence[str]) -> dict[str, Loss]:
        """Those of the items that a worker of the pool was at when it was lost."""
        return dict(self._ask("losses", pool, items) or {})

    def begin(self, items: Sequence[str]) -> None:
        """This actor is at these items from now on."""
        # Waited for: a process that dies of an item must have told of it before.
        self._ask("begin", _actor_id(), tuple(items))

    def at(self, stage: str) -> None:
        """This actor lives, and is at this stage of its items."""
        self._actor.at.remote(_actor_id(), stage)

    def end(self, pool: str, items: Sequence[str]) -> None:
        """These items have results, of whatever kind."""
        self._actor.end.remote(_actor_id(), pool, tuple(items))

    def clear(self) -> None:
        """All workers are gone."""
        self._ask("clear")

    def posts(self) -> list[Post]:
        """Every worker."""
        return list(self._ask("posts") or [])

    def ended(self) -> dict[str, int]:
        """How many items each pool has ended."""
        return dict(self._ask("ended") or {})

    def close(self) -> None:
        """End the board."""
        ray.kill(self._actor)

    def _ask(self, method: str, *args: object) -> Any:  # noqa: ANN401 - each has its own
        try:
            return ray.get(getattr(self._actor, method).remote(*args), timeout=_ANSWER_S)
        except RayError as error:
            log.warning("the board does not answer (%s): %s", method, type(error).__name__)
            return None


class _Board:
    """The actor: its methods run one after the other."""

    def __init__(self) -> None:
        self._posts: dict[str, Post] = {}
        self._heard: dict[str, float] = {}
        self._at_work: dict[tuple[str, str], Loss] = {}
        self._starts: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def started(self, actor: str, post: Post) -> int:
        # An actor that was restarted keeps its id: what it was before is gone.
        self._hear(actor, post)
        self._starts[post.pool] = self._starts.get(post.pool, 0) + 1
        return self._starts[post.pool]

    def losses(self, pool: str, items: Sequence[str]) -> dict[str, Loss]:
        return {item: loss for item in items if (loss := self._at_work.get((pool, item)))}

    def begin(self, actor: str, items: tuple[str, ...]) -> None:
        if post := self._posts.get(actor):
            self._hear(actor, replace(post, items=items))
            how: Loss = "alone" if len(items) == 1 else "with others"
            self._at_work.update({(post.pool, item): how for item in items})

    def at(self, actor: str, stage: str) -> None:
        if post := self._posts.get(actor):
            self._hear(actor, replace(post, stage=stage))

    def end(self, actor: str, pool: str, items: Sequence[str]) -> None:
        for item in items:
            self._at_work.pop((pool, item), None)
        self._starts[pool] = 0
        self._ended[pool] = self._ended.get(pool, 0) + len(items)
        if post := self._posts.get(actor):
            self._hear(actor, replace(post, stage="waiting", items=()))

    def clear(self) -> None:
        for known in (self._posts, self._heard, self._at_work, self._starts, self._ended):
            known.clear()

    def ended(self) -> dict[str, int]:
        return self._ended

    def posts(self) -> list[Post]:
        now = time.monotonic()
        return [replace(p, silent_s=now - self._heard[a]) for a, p in self._posts.items()]

    def _hear(self, actor: str, post: Post) -> None:
        self._posts[actor], self._heard[actor] = post, time.monotonic()


def _actor_id() -> str:
    return str(ray.get_runtime_context().get_actor_id())
