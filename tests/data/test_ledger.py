import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayreel.data import ledger as ledger_module
from rayreel.data import storage as storage_module
from rayreel.data.ledger import FailureRecord, Ledger, LedgerEntry
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def done(item_id: str, attempt: int = 1, **changes) -> LedgerEntry:
    values = {
        "item_id": item_id,
        "status": "done",
        "attempt": attempt,
        "seconds": {"text": 0.5, "stage1": 12.25},
        "output": f"videos/{item_id}.mp4",
        "sha256": "ab" * 32,
        "num_bytes": 1234,
        "seed": 7,
        "worker": "node-1/42",
        "finished_at": NOON,
    }
    return LedgerEntry.model_validate(values | changes)


def failed(
    item_id: str, attempt: int = 1, message: str = "no such file: é\n", **changes
) -> LedgerEntry:
    error = FailureRecord(stage="text", error="MediaError", message=message)
    nothing = {"output": None, "sha256": None, "num_bytes": None}
    return done(item_id, attempt, status="failed", error=error, **nothing, **changes)


def test_entries_come_back_unchanged(storage):
    ledger, entries = Ledger(storage), [done("a"), failed("b"), done("c", seed=None, seconds={})]
    for entry in entries:
        ledger.append(entry)
    assert Ledger(storage).read() == {entry.item_id: entry for entry in entries}


def test_new_run_has_no_entries(storage):
    assert Ledger(storage).read() == {}


@given(st.permutations([failed("x"), failed("x", 3), done("x", 2), failed("x", 4)]))
def test_done_counts_most(entries):
    storage = Storage(f"memory://{uuid4().hex}")
    for entry in entries:
        Ledger(storage).append(entry)
    assert Ledger(storage).read() == {"x": done("x", 2)}


def test_later_failure_replaces_an_earlier_one(storage):
    for attempt, message in ((2, "second"), (1, "first")):
        Ledger(storage).append(failed("x", attempt, message))
    assert Ledger(storage).read()["x"].attempt == 2


def test_of_all_successes_of_an_item_one_counts(storage):
    start = threading.Barrier(8)

    def append(attempt):
        start.wait()
        return Ledger(storage).append(done("x", attempt))

    with ThreadPoolExecutor(8) as writers:
        counted = list(writers.map(append, range(1, 9)))
    assert counted.count(True) == 1
    assert Ledger(storage).read() == {"x": done("x", counted.index(True) + 1)}


def test_failures_are_kept_beside_a_success(storage):
    ledger = Ledger(storage)
    assert [ledger.append(entry) for entry in (failed("x"), failed("x", 2))] == [True, True]
    assert ledger.append(done("x", 3))
    assert len(storage.names("ledger")) == 3
    assert ledger.find("x") == done("x", 3)


def filled(storage: Storage, count: int = 6) -> dict[str, LedgerEntry]:
    """A ledger of successes, and failures of every third item."""
    entries = {f"item{i}": done(f"item{i}") if i % 3 else failed(f"item{i}") for i in range(count)}
    for entry in entries.values():
        Ledger(storage).append(entry)
    return entries


def test_compacting_changes_nothing_but_the_files(storage):
    entries = filled(storage)
    Ledger(storage).compact()
    (part,) = storage.names("ledger")
    assert part.startswith("ledger/part-")
    assert storage.read_bytes(part).count(b"\n") == 6
    assert Ledger(storage).read() == entries


def test_successes_are_found_in_files_of_their_own_and_in_parts(storage):
    entries, ledger = filled(storage), Ledger(storage)
    for _ in range(2):
        assert ledger.find("item1") == entries["item1"]
        assert ledger.find("item0") is None
        assert ledger.find("item") is None
        Ledger(storage).compact()
    Ledger(storage).append(done("new"))
    Ledger(storage).compact()
    assert ledger.find("new") == done("new")
    assert ledger.find("item2") == entries["item2"]


def test_few_lines_are_not_worth_a_part(storage):
    filled(storage, 3)
    Ledger(storage).compact(least=4)
    assert len(storage.names("ledger")) == 3
    Ledger(storage).compact(least=3)
    assert len(storage.names("ledger")) == 1


def test_small_parts_are_joined_and_large_ones_left(storage, monkeypatch):
    ledger = Ledger(storage)
    for number in range(4):
        ledger.append(done(f"item{number}"))
        ledger.compact()
    (large,) = storage.names("ledger")
    monkeypatch.setattr(ledger_module, "SMALL_PART_BYTES", storage.size(large))
    ledger.append(done("item4"))
    ledger.compact()
    assert large in storage.names("ledger")
    assert len(storage.names("ledger")) == 2
    assert len(ledger.read()) == 5


def test_parts_have_a_largest_size(storage, monkeypatch):
    monkeypatch.setattr(ledger_module, "PART_BYTES", 1000)
    entries = filled(storage, 12)
    Ledger(storage).compact()
    parts = storage.names("ledger")
    assert len(parts) > 2
    assert all(storage.size(part) <= 1000 for part in parts)
    assert Ledger(storage).read() == entries


class KilledError(Exception):
    """Where a driver died."""


@pytest.mark.parametrize("large", [False, True])
def test_a_kill_while_compacting_loses_and_doubles_nothing(storage, monkeypatch, large):
    entries = filled(storage)

    def die(names):
        storage_module.Storage.remove(storage, names[:2])
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", die)
        with pytest.raises(KilledError):
            Ledger(storage).compact()
    if large:
        monkeypatch.setattr(ledger_module, "SMALL_PART_BYTES", 1)
    assert Ledger(storage).read() == entries
    Ledger(storage).compact()
    lines = [line for name in storage.names("ledger") for line in storage.read_text(name).split()]
    assert Ledger(storage).read().keys() == entries.keys()
    assert sum('"item_id":"item2"' in line for line in lines) == 1


def test_a_success_after_compacting_is_not_counted_twice(storage, monkeypatch):
    entries, ledger = filled(storage), Ledger(storage)
    ledger.compact()
    monkeypatch.setattr(ledger_module, "SMALL_PART_BYTES", 1)
    assert ledger.append(done("item1", attempt=2))
    ledger.compact()
    assert Ledger(storage).read() == entries
    assert Ledger(storage).find("item1") == entries["item1"]


def test_readers_and_writers_do_not_mind_a_driver_that_compacts(storage, monkeypatch):
    monkeypatch.setattr(ledger_module, "SMALL_PART_BYTES", 4000)
    written: list[str] = []
    stop = threading.Event()

    def write(name):
        count = 0
        while not stop.is_set():
            count += 1
            assert Ledger(storage).append(done(f"{name}-{count}"))
            written.append(f"{name}-{count}")

    def compact():
        while not stop.is_set():
            Ledger(storage).compact()

    with ThreadPoolExecutor(3) as others:
        tasks = [others.submit(write, "a"), others.submit(write, "b"), others.submit(compact)]
        reader = Ledger(storage)
        for _ in range(6):
            before = list(written)
            assert not set(before) - reader.read().keys()
            assert all(reader.find(item) for item in before[-2:])
        stop.set()
    assert [task.result() for task in tasks] == [None] * 3


def test_a_table_tells_what_became_of_items(storage):
    entries = filled(storage)
    for compacted in (False, True):
        table = Ledger(storage).table()
        assert len(table) == 6
        assert table.ids.tolist() == [f"item{i}".encode() for i in range(6)]
        assert table.status(["item2", "x", "item0", ""]) == ["done", None, "failed", None]
        assert table.status(np.array(["item1"], dtype="S32")) == ["done"]
        assert table.entries(["item3", "zz", "item1"]) == [entries["item3"], None, entries["item1"]]
        assert table.entry("item") is None
        assert table.table["item_id"].to_pylist() == sorted(entries)
        if not compacted:
            Ledger(storage).compact()


def test_a_new_run_has_an_empty_table(storage):
    table = Ledger(storage).table()
    assert len(table) == 0
    assert table.status(["a"]) == [None]
    assert table.entries(["a"]) == [None]
    assert table.entries([]) == []
    assert table.status([]) == []


def test_stages_that_are_new_have_seconds(storage):
    entries = {"a": done("a", seconds={"upscale": 1.5}), "b": done("b", seconds={"text": 2.0})}
    Ledger(storage).append(entries["a"])
    Ledger(storage).compact()
    Ledger(storage).append(entries["b"])
    assert Ledger(storage).read() == entries


def damaged(part: bytes, kind: str) -> bytes:
    lines = part.splitlines(keepends=True)
    match kind:
        case "torn":
            return lines[0] + lines[1][:20] + b"\n" + lines[2]
        case "cut":
            return part[:-30]
        case "null":
            return lines[0] + lines[1].replace(b'"worker":"node-1/42",', b"") + lines[2]
        case _:
            return lines[0] + lines[1].replace(b'"done"', b'"failed"') + lines[2]


@pytest.mark.parametrize(
    ("kind", "line"), [("torn", 2), ("cut", 3), ("null", 2), ("contradiction", 2)]
)
def test_damage_is_an_error_that_names_file_and_line(tmp_path, kind, line):
    storage = Storage(tmp_path)
    for item in "abc":
        Ledger(storage).append(done(item))
    Ledger(storage).compact()
    (name,) = storage.names("ledger")
    storage.write_bytes(name, damaged(storage.read_bytes(name), kind))
    Ledger(storage).append(done("d"))
    with pytest.raises(RayreelError, match=f"line {line} of {storage.join(name)} is damaged"):
        Ledger(storage).read()
    with pytest.raises(RayreelError, match=f"line {line} of "):
        Ledger(storage).compact()
    assert name in storage.names("ledger")


def test_damage_of_a_single_line_is_found_among_many(storage):
    filled(storage)
    storage.write_bytes("ledger/one-item1.jsonl", b"{")
    for read in (Ledger(storage).read, lambda: Ledger(storage).find("item1")):
        with pytest.raises(RayreelError, match=r"line 1 of .*/one-item1.jsonl is damaged"):
            read()


def test_a_copy_in_another_process_is_the_same_ledger(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    pickle.loads(pickle.dumps(ledger)).append(done("b"))
    assert ledger.read() == {"b": done("b")}


def test_times_are_kept_in_utc(storage):
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))
    Ledger(storage).append(done("a", finished_at=elsewhere))
    text = storage.read_text(storage.names("ledger")[0])
    assert '"finished_at":"2026-01-02T12:00:00Z"' in text


@pytest.mark.parametrize(
    "changes",
    [
        {"output": None},
        {"error": {"stage": "a", "error": "b", "message": "c"}},
        {"status": "failed"},
        {"attempt": 0},
        {"finished_at": "2026-01-02T12:00:00"},
    ],
)
def test_entries_that_contradict_themselves_are_refused(changes):
    with pytest.raises(ValueError, match="validation error"):
        done("a", **changes)
