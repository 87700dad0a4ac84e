import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from rayreel.data.storage import Storage


def test_what_is_written_is_read_back(storage):
    storage.write_bytes("a/b.txt", "héllo".encode())
    assert storage.exists("a/b.txt")
    assert storage.read_text("a/b.txt") == "héllo"


def test_several_files_are_read_by_name(storage):
    for name in ("a/1", "a/2", "3"):
        storage.write_bytes(name, name.encode())
    assert storage.read_many(["3", "a/1"]) == {"3": b"3", "a/1": b"a/1"}


def test_writing_again_replaces(storage):
    storage.write_bytes("a", b"a long text")
    storage.write_bytes("a", b"short")
    assert storage.read_bytes("a") == b"short"


def test_missing_files_are_missing(storage):
    assert not storage.exists("a")
    assert storage.names("a") == []
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("a")


def test_names_lists_the_files_of_one_folder(storage):
    for name in ("v/b", "v/a", "v/deep/c", "w/d"):
        storage.write_bytes(name, b"")
    assert storage.names("v") == ["v/a", "v/b"]


def test_staged_file_appears_when_the_block_ends(storage):
    with storage.local_staging("videos/a.mp4") as path:
        assert path.suffix == ".mp4"
        path.write_bytes(b"clip")
        assert storage.names("videos") == []
    assert storage.names("videos") == ["videos/a.mp4"]
    assert storage.read_bytes("videos/a.mp4") == b"clip"
    assert not path.exists()


def fail_while_staging(storage: Storage) -> None:
    with storage.local_staging("a.mp4") as path:
        path.write_bytes(b"half of it")
        raise RuntimeError("killed")


def test_staged_file_of_a_failed_block_is_never_seen(storage):
    storage.write_bytes("a.mp4", b"before")
    with pytest.raises(RuntimeError, match="killed"):
        fail_while_staging(storage)
    assert storage.read_bytes("a.mp4") == b"before"


def test_nothing_is_left_of_a_failed_write(tmp_path):
    storage = Storage(tmp_path / "run")
    with pytest.raises(RuntimeError, match="killed"):
        fail_while_staging(storage)
    assert list((tmp_path / "run").iterdir()) == []


def test_rest_of_a_killed_writer_is_not_listed(tmp_path):
    storage = Storage(tmp_path)
    killed = storage.local_staging("v/a.txt")
    killed.__enter__().write_bytes(b"half of it")
    storage.write_bytes("v/b.txt", b"")
    assert len(list((tmp_path / "v").iterdir())) == 2
    assert storage.names("v") == ["v/b.txt"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "../a", "a/../../b", "a//b", "a b", "~a", "a\n", "é", "x" * 201],
)
def test_unsafe_names_are_refused(storage, name):
    for method in (storage.join, storage.exists, storage.read_bytes, storage.names):
        with pytest.raises(ValueError, match="not a name"):
            method(name)
    with pytest.raises(ValueError, match="not a name"):
        storage.write_bytes(name, b"")


def test_longest_name_can_be_written(storage):
    storage.write_bytes("x" * 200, b"a")
    storage.write_bytes("." + "x" * 199, b"b")
    assert storage.read_many(["x" * 200, "." + "x" * 199])["." + "x" * 199] == b"b"


def test_local_names_are_paths_and_others_uris(tmp_path):
    assert Storage(tmp_path).join("a/b") == str(tmp_path / "a" / "b")
    assert Storage(f"file://{tmp_path}").local_path("a") == tmp_path / "a"
    assert Storage("memory://run").join("a") == "memory:///run/a"
    assert Storage("memory://run").local_path("a") is None


def test_a_copy_in_another_process_sees_the_same_files(tmp_path):
    storage = Storage(tmp_path)
    pickle.loads(pickle.dumps(storage)).write_bytes("a", b"1")
    assert storage.read_bytes("a") == b"1"


def test_only_one_of_many_writers_creates_a_file(storage):
    start = threading.Barrier(16)

    def create(number):
        start.wait()
        return storage.create_bytes("ledger/a", b"%d" % number)

    with ThreadPoolExecutor(16) as writers:
        won = list(writers.map(create, range(16)))
    assert won.count(True) == 1
    assert storage.read_bytes("ledger/a") == b"%d" % won.index(True)
    assert storage.names("ledger") == ["ledger/a"]


def test_stores_are_asked_whether_creates_are_exclusive(storage, monkeypatch):
    assert storage.honours_create()
    assert storage.names("x") == []
    monkeypatch.setattr(
        storage, "create_bytes", lambda name, data: not storage.write_bytes(name, data)
    )
    assert not storage.honours_create()


def stage(storage: Storage, name: str, data: bytes, *, replace: bool) -> Path:
    with storage.local_staging(name, replace=replace) as path:
        path.write_bytes(data)
    return path


def test_a_staged_file_that_may_not_replace_is_thrown_away(storage):
    stage(storage, "v/a.mp4", b"first", replace=False)
    with pytest.raises(FileExistsError):
        stage(storage, "v/a.mp4", b"second", replace=False)
    assert storage.read_bytes("v/a.mp4") == b"first"
    assert not stage(storage, "v/a.mp4", b"third", replace=True).exists()
    assert storage.read_bytes("v/a.mp4") == b"third"
    if folder := storage.local_path("v"):
        assert [path.name for path in folder.iterdir()] == ["a.mp4"]


def test_files_of_many_parts_are_created_once(s3_server, tmp_path, monkeypatch):
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: 5 * 2**20)
    storage, data = Storage(f"{s3_server.url}/{uuid4().hex}"), os.urandom(2**20) * 11
    stage(storage, "a.mp4", data, replace=False)
    with pytest.raises(FileExistsError):
        stage(storage, "a.mp4", data[::-1], replace=False)
    assert storage.size("a.mp4") == len(data)
    assert storage.read_bytes("a.mp4") == data


def test_sizes_are_told(storage):
    storage.write_bytes("v/a", b"12345")
    assert storage.size("v/a") == 5
    for missing in ("v/b", "v"):
        with pytest.raises(FileNotFoundError):
            storage.size(missing)


def test_removed_files_are_gone_and_missing_ones_are_fine(storage):
    for name in ("v/a", "v/b", "v/c"):
        storage.write_bytes(name, b"")
    storage.remove(["v/a", "v/c", "v/none", "w/none"])
    assert storage.names("v") == ["v/b"]


def test_files_that_may_be_missing_are_left_out(storage):
    storage.write_bytes("a", b"1")
    assert storage.read_many(["a", "b"], missing_ok=True) == {"a": b"1"}
    with pytest.raises(FileNotFoundError):
        storage.read_many(["a", "b"])


def test_a_folder_without_hard_links_says_so(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(PermissionError) as caught:
        Storage(tmp_path).create_bytes("a", b"")
    assert "needs hard links" in caught.value.__notes__[0]
