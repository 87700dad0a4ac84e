"""Pictures of running jobs: the last one, and how many there were."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from rayreel.serving.store import JobStore
from tests.serving.store.jobs import OUTPUT, current, running, submitted


def shown(store: JobStore, job_id: str, *pictures: bytes, lease: str = "mine") -> None:
    for picture in pictures:
        made = {job_id: picture}
        store.progress(lease, [job_id], stage="stage1", step=1, steps=8, pictures=made)


def test_the_last_picture_is_kept_and_all_are_counted(store: JobStore):
    job = running(store, "video_a")
    assert (store.picture("video_a"), job.preview) == (None, 0)
    shown(store, "video_a", b"\0\xff one", b"two", b"two")
    now = current(store, "video_a")
    assert (store.picture("video_a"), now.preview) == (b"two", 3)
    assert now.version == job.version + 3


def test_steps_without_a_picture_keep_the_one_that_is_there(store: JobStore):
    running(store, "video_a")
    shown(store, "video_a", b"one")
    store.progress("mine", ["video_a"], stage="stage2", step=0, steps=3)
    now = current(store, "video_a")
    assert (now.stage, now.preview, store.picture("video_a")) == ("stage2", 1, b"one")


def test_each_job_of_a_batch_has_its_own_picture_or_none(store: JobStore):
    names = [running(store, f"video_{name}").job_id for name in "abc"]
    running(store, "video_d", "other")
    pictures = {"video_a": b"a", "video_b": b"b", "video_d": b"d"}
    store.progress("mine", names, stage="stage1", step=1, steps=8, pictures=pictures)
    assert [store.picture(name) for name in names] == [b"a", b"b", None]
    assert {current(store, name).step for name in names} == {1}
    assert store.picture("video_d") is None


def test_nobody_else_shows_a_picture(store: JobStore):
    seen = running(store, "video_a")
    shown(store, "video_a", b"one", lease="old")
    assert (store.picture("video_a"), current(store, "video_a")) == (None, seen)


ENDS: dict[str, Callable[[JobStore], object]] = {
    "finish": lambda store: store.finish(
        "mine", "video_a", OUTPUT, seconds={}, now=1.0, expires_at=None
    ),
    "fail": lambda store: store.fail(
        "mine", "video_a", error="e", message="m", seconds={}, now=1.0, expires_at=None
    ),
    "cancelled": lambda store: store.cancelled("mine", "video_a", 1.0, None),
    "release": lambda store: store.release("mine", ["video_a"]),
    "take over": lambda store: store.take_over(current(store, "video_a"), attempts=3, now=1.0),
    "give up": lambda store: store.take_over(current(store, "video_a"), attempts=1, now=1.0),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_job_that_runs_no_more_has_no_picture(store: JobStore, end: Callable[[JobStore], object]):
    running(store, "video_a")
    shown(store, "video_a", b"one")
    assert end(store)
    assert (store.picture("video_a"), current(store, "video_a").preview) == (None, 0)


def test_a_job_that_is_not_there_has_no_picture(store: JobStore):
    assert store.picture("video_a") is None


def test_lists_do_not_read_pictures(store: JobStore):
    running(store, "video_a")
    submitted(store, "video_b")
    statements: list[str] = []
    note = lambda *a: statements.append(a[2])  # noqa: E731
    sa.event.listen(store._database._engine, "before_cursor_execute", note)
    store.list(owner="", limit=9, after=None, ascending=True)
    store.running()
    store.queued(9)
    store.changed({"video_a": -1})
    store.get("video_a")
    assert len(statements) >= 5
    assert not any("picture" in statement for statement in statements)
