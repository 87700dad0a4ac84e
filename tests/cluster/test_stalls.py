"""A run that waits says for what."""

import time

import pytest

from rayreel.cluster.board import Post
from rayreel.cluster.stalls import looked_after


class Posts:
    """A board on which nothing changes."""

    def __init__(self, *posts: Post) -> None:
        self._posts = posts

    def posts(self):
        return list(self._posts)


def post(pool: str, stage: str, *items: str, silent_s: float = 100.0) -> Post:
    return Post(pool, f"node:{pool}", None, stage=stage, items=items, silent_s=silent_s)


@pytest.fixture
def said(caplog):
    def said(*posts: Post, report_s: float = 0.2) -> str:
        with looked_after(Posts(*posts), ["stage1", "decode"], lambda: None, report_s=report_s):  # type: ignore[arg-type]
            time.sleep(3 * report_s)
        return str(caplog.text)

    return said


def test_a_silent_worker_is_told_with_its_stage_and_item_once(said):
    text = said(post("stage1", "stage1", "a", "b"), post("decode", "decode", "c", silent_s=0.0))
    assert text.count("stage stage1 on node:stage1 is at item a and 1 more") == 1
    assert "item c" not in text


def test_a_pool_that_has_no_worker_is_named(said):
    text = said(post("stage1", "waiting"))
    assert "stage decode has no worker: the cluster has no room for it" in text


def test_workers_that_load_are_named(said):
    text = said(post("stage1", "waiting"), post("decode", "loading"))
    assert "node:decode loads decode since 100 s" in text


def test_nothing_is_said_while_somebody_works(said):
    working = post("stage1", "stage1", "a", silent_s=0.0)
    assert "waiting" not in said(working, post("decode", "waiting"))
    assert not said(working)
