"""What clients see of jobs: places, lists, changes; and how they cancel and remove them."""

import pytest

from rayreel.serving.jobs import Job, Place
from rayreel.serving.store import JobStore
from tests.serving.store.jobs import OUTPUT, current, done, running, submitted


def ids(jobs: tuple[Job, ...] | list[Job]) -> list[str]:
    return [job.job_id for job in jobs]


def pages(store: JobStore, *, limit: int, ascending: bool = False) -> list[list[str]]:
    found: list[list[str]] = []
    after: str | None = None
    while True:
        page = store.list(owner="", limit=limit, after=after, ascending=ascending)
        found.append(ids(page.jobs))
        if not page.more:
            return found
        after = page.jobs[-1].job_id


def test_the_queue_is_in_order_of_due_then_of_name(store: JobStore):
    for job_id, due in (("video_b", 2.0), ("video_d", 3.0), ("video_c", 2.0), ("video_a", 4.0)):
        submitted(store, job_id, due=due)
    assert ids(store.queued(10)) == ["video_b", "video_c", "video_d", "video_a"]
    assert ids(store.queued(2)) == ["video_b", "video_c"]


def test_a_place_counts_the_jobs_before_it_and_what_they_cost(store: JobStore):
    running(store, "video_r", due=0.0, cost_s=100.0)
    first = submitted(store, "video_b", due=2.0, cost_s=5.0)
    second = submitted(store, "video_c", due=2.0, cost_s=0.5)
    third = submitted(store, "video_a", due=3.0)
    expected = [
        Place(ahead=0, ahead_s=0.0),
        Place(ahead=1, ahead_s=5.0),
        Place(ahead=2, ahead_s=5.5),
    ]
    jobs = (first, second, third)
    assert [store.place(job) for job in jobs] == expected
    places = store.places([*ids(list(jobs)), "video_r", "video_x"])
    assert places == dict(zip(ids(list(jobs)), expected, strict=True))


def test_places_of_many_jobs_are_told_at_once(store: JobStore):
    submitted(store, "video_a")
    assert store.places([*(f"video_{number}" for number in range(1200)), "video_a"]) == {
        "video_a": Place(ahead=0, ahead_s=0.0)
    }


@pytest.mark.parametrize("ascending", [False, True])
def test_pages_show_every_job_once_in_order(store: JobStore, ascending: bool):
    for number, created_at in enumerate([3.0, 1.0, 2.0, 2.0, 2.0]):
        submitted(store, f"video_{number}", created_at=created_at)
    oldest = ["video_1", "video_2", "video_3", "video_4", "video_0"]
    order = oldest if ascending else oldest[::-1]
    assert pages(store, limit=2, ascending=ascending) == [order[:2], order[2:4], order[4:]]
    assert pages(store, limit=5, ascending=ascending) == [order]


def test_pages_stay_where_they_are_while_jobs_come_in(store: JobStore):
    for number in range(4):
        submitted(store, f"video_{number}", created_at=float(number))
    page = store.list(owner="", limit=2, after=None, ascending=False)
    submitted(store, "video_9", created_at=9.0)
    after = store.list(owner="", limit=2, after=page.jobs[-1].job_id, ascending=False)
    assert [*ids(page.jobs), *ids(after.jobs)] == ["video_3", "video_2", "video_1", "video_0"]
    assert not after.more


def test_lists_are_of_one_owner(store: JobStore):
    submitted(store, "video_a", owner="one")
    submitted(store, "video_b", owner="two")
    assert ids(store.list(owner="one", limit=9, after=None, ascending=False).jobs) == ["video_a"]
    with pytest.raises(ValueError, match="after='video_b' is none of these jobs"):
        store.list(owner="one", limit=9, after="video_b", ascending=False)


def test_a_page_holds_at_least_one_job(store: JobStore):
    with pytest.raises(ValueError, match="limit=0; expected at least 1"):
        store.list(owner="", limit=0, after=None, ascending=False)


def test_lists_are_filtered_by_state_and_kind(store: JobStore):
    submitted(store, "video_a")
    running(store, "video_b")
    done(store, "image_c", kind="image")
    by_state = store.list(owner="", limit=9, after=None, ascending=True, states=("running", "done"))
    by_kind = store.list(owner="", limit=9, after=None, ascending=True, kind="image")
    assert set(ids(by_state.jobs)) == {"video_b", "image_c"}
    assert ids(by_kind.jobs) == ["image_c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KITE", ["video_a"]),
        ("100%", ["video_b"]),
        ("0%k", []),
        ("a_b", ["video_c"]),
        ("ÜBER", ["video_d"]),
        ("a/b", ["video_d"]),
        ("\\", ["video_b"]),
        ("", ["video_a", "video_b", "video_c", "video_d"]),
        ("x' OR '1'='1", []),
    ],
)
def test_lists_are_searched_for_the_text_itself(store: JobStore, text: str, expected: list[str]):
    for job_id, prompt in (
        ("video_a", "A red Kite"),
        ("video_b", "100% k\\o"),
        ("video_c", "a_b"),
        ("video_d", "über a/b axb"),
    ):
        submitted(store, job_id, prompt=prompt)
    page = store.list(owner="", limit=9, after=None, ascending=True, text=text)
    assert ids(page.jobs) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"shot": "1"}, ["video_a", "video_b"]),
        ({"shot": "1", "take": "2"}, ["video_b"]),
        ({"take": "2", "shot": "1"}, ["video_b"]),
        ({"SHOT": "1"}, []),
        ({"shot": "%"}, []),
        ({"1": "shot"}, []),
        ({": ": ", "}, []),
        ({'a"': "b\n"}, ["video_c"]),
    ],
)
def test_lists_are_filtered_by_all_tags_exactly(
    store: JobStore, tags: dict[str, str], expected: list[str]
):
    submitted(store, "video_a", tags={"shot": "1"})
    submitted(store, "video_b", tags={"shot": "1", "take": "2"})
    submitted(store, "video_c", tags={'a"': "b\n", "a": ": ", "b": "c"})
    page = store.list(owner="", limit=9, after=None, ascending=True, tags=tags)
    assert ids(page.jobs) == expected


def test_changed_tells_the_jobs_with_another_version(store: JobStore):
    same, other = submitted(store, "video_a"), submitted(store, "video_b")
    running_one = store.take(["video_b"], "mine", 1.0)[0]
    seen = {"video_a": same.version, "video_b": other.version, "video_gone": 3}
    assert store.changed(seen) == {"video_b": running_one, "video_gone": None}
    assert store.changed({"video_a": same.version, "video_b": running_one.version}) == {}
    assert store.changed({}) == {}


def test_the_version_grows_with_what_a_client_can_see(store: JobStore):
    versions = [submitted(store, "video_a").version]
    steps = (
        lambda: store.take(["video_a"], "mine", 1.0),
        lambda: store.progress("mine", ["video_a"], stage="stage1", step=1, steps=8),
        lambda: store.progress("mine", ["video_a"], stage="stage1", step=2, steps=8),
        lambda: store.wrote("mine", "video_a", "longer", ()),
        lambda: store.release("mine", ["video_a"]),
        lambda: store.take(["video_a"], "mine", 1.0),
        lambda: store.ask_cancel("video_a"),
        lambda: store.finish("mine", "video_a", OUTPUT, seconds={}, now=2.0, expires_at=None),
    )
    for step in steps:
        step()
        versions.append(current(store, "video_a").version)
    assert versions == sorted(set(versions))


def test_what_no_client_sees_leaves_the_version(store: JobStore):
    running(store, "video_a")
    store.progress("mine", ["video_a"], stage="stage1", step=1, steps=8)
    version = current(store, "video_a").version
    store.beat("mine", ["video_a"])
    store.progress("mine", ["video_a"], stage="stage1", step=1, steps=8)
    assert current(store, "video_a").version == version


def test_a_job_that_waits_is_cancelled_at_once(store: JobStore):
    submitted(store, "video_a")
    job = store.ask_cancel("video_a")
    assert job is not None
    assert (job.state, job.finished_at is None, job.cancelling) == ("cancelled", False, False)
    assert store.take(["video_a"], "mine", 1.0) == []


def test_a_job_that_runs_is_marked_for_its_dispatcher(store: JobStore):
    running(store, "video_a")
    job = store.ask_cancel("video_a")
    assert job is not None
    assert (job.state, job.cancelling, job.lease) == ("running", True, "mine")
    assert store.ask_cancel("video_a") == job


def test_a_finished_job_stays_when_it_is_asked_to_stop(store: JobStore):
    job = done(store, "video_a")
    assert store.ask_cancel("video_a") == job
    assert store.ask_cancel("video_x") is None


def test_only_finished_jobs_are_removed(store: JobStore):
    submitted(store, "video_a")
    assert not store.delete("video_a")
    store.take(["video_a"], "mine", 1.0)
    assert not store.delete("video_a")
    store.cancelled("mine", "video_a", 2.0, None)
    assert store.delete("video_a")
    assert store.get("video_a") is None
    assert not store.delete("video_a")
