"""The store of results: whole parts, found by key, blobs read only where they are asked for."""

import pickle
import random
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from rayreel.data.storage import Storage
from rayreel.data.store import FOLDER, Record, RecordStore
from rayreel.errors import RayreelError

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture(params=["local", "object store"])
def storage(request, tmp_path):
    return Storage(tmp_path / "a [b]*" if request.param == "local" else f"memory://{uuid4().hex}")


def text(key, content="A fox.", **fields):
    return Record(key=key, kind="prompt", text=content, **fields)


def test_records_come_back_unchanged(storage):
    records = (
        text("a"),
        text("b", "", made_by={"weights": "0123", "length": "1024"}),
        Record(key="c", kind="latent", tensors=b"\0\xff" * 99),
    )
    RecordStore(storage).put(*records)
    reader = RecordStore(storage)
    assert [reader.get(record.key) for record in records] == list(records)


def test_what_nobody_wrote_is_not_there(storage):
    store = RecordStore(storage)
    assert store.get("a") is None
    store.put(text("b"))
    assert store.get("a") is None


def test_a_reader_sees_what_others_write_later(storage):
    reader, record = RecordStore(storage), text("a")
    assert reader.get("a") is None
    RecordStore(storage).put(record)
    assert reader.get("a") == record


def test_keys_that_are_known_include_those_of_other_writers_at_once(storage):
    reader = RecordStore(storage)
    assert reader.known(["a", "b"]) == set()
    RecordStore(storage).put(text("a"), text("c"))
    assert reader.known(["a", "b"]) == {"a"}
    RecordStore(storage).put(text("b"))
    assert reader.known(["a", "b"]) == {"a", "b"}
    assert reader.known([]) == set()


def test_several_records_are_read_at_once(storage):
    RecordStore(storage).put(text("a", tensors=b"1"), text("b"), text("c", tensors=b"3"))
    RecordStore(storage).put(text("d"))
    found = RecordStore(storage).read(["d", "c", "?", "a"])
    assert list(found) == ["d", "c", "a"]
    assert [record.tensors for record in found.values()] == [b"", b"3", b"1"]
    assert found["c"] == RecordStore(storage).get("c")
    assert RecordStore(storage).read([]) == {}


def test_each_part_is_opened_once_for_all_that_is_read_of_it(tmp_path, monkeypatch):
    store, parts, opened = RecordStore(Storage(tmp_path)), pq.ParquetFile, []

    def counted(file):
        opened.append(file)
        return parts(file)

    for first in "ad":
        store.put(*(text(chr(ord(first) + place)) for place in range(3)))
    monkeypatch.setattr(pq, "ParquetFile", counted)
    assert store.read("abcdef").keys() == set("abcdef")
    assert len(opened) == 2


def test_parts_are_looked_for_only_where_a_key_is_missing(tmp_path, monkeypatch):
    store = RecordStore(Storage(tmp_path))
    store.put(text("a"))
    assert store.known(["a"]) == {"a"}
    monkeypatch.setattr(Storage, "names", None)
    assert store.known(["a"]) == {"a"}


def test_records_of_a_text_are_found_whatever_their_keys(storage):
    store = RecordStore(storage)
    hour = timedelta(hours=1)
    store.put(text("b", "A fox.", created_at=NOON + hour, tensors=b"big"), text("c", "A cat."))
    store.put(text("a", "A fox.", created_at=NOON, made_by={"weights": "0123"}))
    store.put(Record(key="d", kind="text", text="A fox."))
    earlier, later = store.find("prompt", "A fox.")
    assert (earlier.key, earlier.made_by) == ("a", {"weights": "0123"})
    assert (later.key, later.made_by, later.tensors) == ("b", None, b"")


def test_every_put_is_a_part_of_its_own_with_plain_columns(tmp_path):
    store = RecordStore(Storage(tmp_path))
    store.put(text("a"), text("b"))
    store.put(text("c"))
    tables = [pq.read_table(part) for part in (tmp_path / FOLDER).iterdir()]
    assert sorted(table.num_rows for table in tables) == [1, 2]
    plain = ["key", "kind", "text", "created_at", "made_by"]
    assert tables[0].column_names == [*plain, "tensors"]


def test_the_earliest_of_equal_keys_counts_whatever_the_order_of_parts(storage):
    for minute in (2, 0, 1):
        when = NOON + timedelta(minutes=minute)
        RecordStore(storage).put(text("a", f"minute {minute}", created_at=when))
    record = RecordStore(storage).get("a")
    assert record is not None
    assert (record.text, record.created_at) == ("minute 0", NOON)


def test_looking_for_keys_reads_no_blobs(tmp_path, monkeypatch):
    blob, read, parts = random.Random(0).randbytes(2**20), [], pq.ParquetFile
    RecordStore(Storage(tmp_path)).put(*(text(key, tensors=blob) for key in "abc"))

    class Counted:
        """A file that says how much of it was read."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self, count=-1):
            data = self.file.read(count)
            read.append(len(data))
            return data

    monkeypatch.setattr(pq, "ParquetFile", lambda file: parts(Counted(file)))
    store = RecordStore(Storage(tmp_path))
    assert store.known(["other", "a"]) == {"a"}
    assert 0 < sum(read) < len(blob) / 8
    assert store.get("b") is not None
    assert len(blob) < sum(read) < 1.5 * len(blob)


def test_a_copy_in_another_process_goes_on_with_the_same_records(storage):
    store, record = RecordStore(storage), text("a")
    store.put(record)
    copy = pickle.loads(pickle.dumps(store))
    copy.put(text("b"))
    assert copy.get("a") == store.get("a") == record
    assert store.get("b") is not None


def test_a_damaged_part_is_told_by_name(storage):
    RecordStore(storage).put(text("a"))
    (name,) = storage.names(FOLDER)
    storage.write_bytes(name, storage.read_bytes(name)[:-9])
    with pytest.raises(RayreelError, match=r"records/part-\w+\.parquet is not a part of a store"):
        RecordStore(storage).get("a")
