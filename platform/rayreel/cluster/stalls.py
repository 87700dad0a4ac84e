"""Looks after a run that waits: says for what, and replaces workers that have fallen silent."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray

from rayreel.cluster.board import Board, Post

REPORT_S = 45.0
"""A worker that is silent for so long is reported, and again each time that it is as long."""
REPLACE_S = 1800.0
"""A worker that is silent for so long at its items is taken for hung."""
_LOOK_S = 5.0
_MOST_REPORTED = 5

log = logging.getLogger(__name__)


@contextmanager
def looked_after(
    board: Board,
    pools: Sequence[str],
    on_look: Callable[[], None],
    *,
    report_s: float = REPORT_S,
    replace_s: float = REPLACE_S,
) -> Iterator[None]:
    """Look after the workers of some pools until the block ends.

    Args:
        board: What they tell.
        pools: Names of all pools, in order.
        on_look: Called every few seconds.
        report_s: Seconds of silence until it is reported.
        replace_s: Seconds of silence until a worker that is at items is replaced.
    """
    over = threading.Event()
    watch = _Watch(board, pools, on_look, report_s, replace_s)
    thread = threading.Thread(target=watch.until, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Watch:
    def __init__(
        self,
        board: Board,
        pools: Sequence[str],
        on_look: Callable[[], None],
        report_s: float,
        replace_s: float,
    ) -> None:
        self._board = board
        self._pools = pools
        self._on_look = on_look
        self._report_s = report_s
        self._replace_s = replace_s
        self._reported: Counter[str] = Counter()
        self._replaced: set[str] = set()
        self._idle_s = 0.0

    def until(self, over: threading.Event) -> None:
        look_s = min(_LOOK_S, self._report_s / 4)
        while not over.wait(look_s):
            posts = self._board.posts()
            self._tell_silent([post for post in posts if post.items])
            self._tell_idle(posts, look_s)
            self._on_look()

    def _tell_silent(self, posts: Sequence[Post]) -> None:
        silent = [post for post in posts if post.silent_s >= self._report_s]
        for post in silent[:_MOST_REPORTED]:
            times = int(post.silent_s / self._report_s)
            if times > self._reported[post.worker]:
                self._reported[post.worker] = times
                log.warning(
                    "stage %s on %s is at %s and has told nothing for %.0f s",
                    *(post.stage, post.worker, _named(post.items), post.silent_s),
                )
        for post in posts:
            if post.silent_s < self._report_s:
                del self._reported[post.worker]
            elif post.silent_s >= self._replace_s and post.worker not in self._replaced:
                # Once: it stays on the board until the one in its place is there.
                self._replaced.add(post.worker)
                log.warning("%s is taken for hung and replaced", post.worker)
                ray.kill(post.handle, no_restart=False)

    def _tell_idle(self, posts: Sequence[Post], look_s: float) -> None:
        """Nobody is at work: loading takes its time, and missing workers will not come."""
        at_work = any(post.items or post.silent_s < look_s for post in posts)
        self._idle_s = 0.0 if at_work else self._idle_s + look_s
        if self._idle_s < self._report_s:
            return
        self._idle_s = 0.0
        loading = [post for post in posts if post.stage == "loading"]
        there = Counter(post.pool for post in posts)
        missing = [pool for pool in self._pools if not there[pool]]
        said = [
            *(f"{post.worker} loads {post.pool} since {post.silent_s:.0f} s" for post in loading),
            *(f"stage {pool} has no worker: the cluster has no room for it" for pool in missing),
        ]
        log.warning(
            "nothing has been at work for %.0f s: %s",
            self._report_s,
            "; ".join(said[:_MOST_REPORTED]) or "every worker waits for items from before it",
        )


def _named(items: Sequence[str]) -> str:
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return f"item {items[0]}{more}"
