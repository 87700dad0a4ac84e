import logging
import os
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.fixture(params=["local", "object store"])
def storage(request, tmp_path) -> Storage:
    return Storage(tmp_path if request.param == "local" else f"memory://{uuid4().hex}")


def only_part(folder: Path) -> Path:
    (part,) = (folder / "ledger").iterdir()
    return part


def test_entries_come_back_unchanged(storage):
    ledger, entries = Ledger(storage), [done("a"), failed("b"), done("c", seed=None, seconds={})]
    for entry in entries:
        ledger.append(entry)
    assert Ledger(storage).read() == {entry.item_id: entry for entry in entries}


def test_new_run_has_no_entries(storage):
    assert Ledger(storage).read() == {}


def test_writers_have_parts_of_their_own(storage):
    first = Ledger(storage)
    first.append(done("a"))
    second = pickle.loads(pickle.dumps(first))
    second.append(done("b"))
    first.append(done("c"))
    assert set(first.read()) == set(second.read()) == {"a", "b", "c"}


def test_one_writer_keeps_to_one_local_file(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    for item in "abc":
        ledger.append(done(item))
    assert only_part(tmp_path).read_text().count("\n") == 3


@given(st.permutations([failed("x"), failed("x", 3), done("x", 2), failed("x", 2), done("x", 1)]))
def test_done_counts_most_then_the_later_attempt(entries):
    storage = Storage(f"memory://{uuid4().hex}")
    for entry in entries:
        Ledger(storage).append(entry)
    assert Ledger(storage).read() == {"x": done("x", 2)}


def test_later_failure_replaces_an_earlier_one(storage):
    for attempt, message in ((2, "second"), (1, "first")):
        Ledger(storage).append(failed("x", attempt, message))
    assert Ledger(storage).read()["x"].attempt == 2


def test_kill_after_any_byte_keeps_exactly_the_complete_entries(tmp_path, caplog):
    storage = Storage(tmp_path)
    entries = [failed("a"), done("b"), failed("c", message="x" * 50)]
    writer = Ledger(storage)
    for entry in entries:
        writer.append(entry)
    part = only_part(tmp_path)
    data = part.read_bytes()
    for size in range(len(data) + 1):
        part.write_bytes(data[:size])
        caplog.clear()
        complete = data[:size].count(b"\n")
        assert list(Ledger(storage).read()) == ["a", "b", "c"][:complete]
        assert bool(caplog.records) == (not data[:size].endswith(b"\n") and size > 0)


def test_rerun_after_a_kill_adds_to_what_was_kept(tmp_path, caplog):
    storage = Storage(tmp_path)
    crashed = Ledger(storage)
    crashed.append(done("a"))
    crashed.append(done("b"))
    os.truncate(only_part(tmp_path), only_part(tmp_path).stat().st_size - 3)
    Ledger(storage).append(done("c"))
    with caplog.at_level(logging.WARNING):
        assert set(Ledger(storage).read()) == {"a", "c"}
    assert "never finished" in caplog.text


def test_entry_after_a_failed_write_goes_to_a_new_part(tmp_path, monkeypatch, caplog):
    ledger = Ledger(Storage(tmp_path))
    ledger.append(done("a"))
    part = only_part(tmp_path)

    def disk_full(descriptor: int) -> None:
        os.truncate(descriptor, part.stat().st_size - 3)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="disk full"):
            ledger.append(done("b"))
    ledger.append(done("c"))
    assert set(ledger.read()) == {"a", "c"}


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    for item in "abc":
        ledger.append(done(item))
    part = only_part(tmp_path)
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    with pytest.raises(RayreelError, match=f"line 2 of {part}"):
        ledger.read()


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
