"""What file systems say of sources, and whether a change of a file shows."""

import os

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from rayreel.data import sources
from rayreel.data.sources import Token, local_copy, tokens
from rayreel.errors import MediaError, RetryableError, StorageError


def token(path) -> Token:
    found = tokens([str(path)])[str(path)]
    assert isinstance(found, Token)
    return found


def test_a_file_that_changes_has_another_token(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"one")
    first = token(clip)
    assert token(clip) == first
    os.utime(clip, (1, 1))
    touched = token(clip)
    clip.write_bytes(b"three")
    os.utime(clip, (1, 1))
    assert len({first, touched, token(clip)}) == 3
    assert token(clip).num_bytes == 5


def test_a_link_changes_with_what_it_leads_to(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"one")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "clip.mp4")
    before = token(tmp_path / "link.mp4")
    os.utime(tmp_path / "clip.mp4", (1, 1))
    assert token(tmp_path / "link.mp4") != before


def test_names_are_taken_as_they_are(tmp_path):
    names = ["a::b.mp4", "c[1]*.mp4", "d e.mp4", "%20#?.mp4"]
    for size, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * size)
    assert [token(tmp_path / name).num_bytes for name in names] == [0, 1, 2, 3]


def test_other_file_systems_are_asked_too():
    with fsspec.open("memory://tokens/clip.mp4", "wb") as file:
        file.write(b"one")
    found = token("memory://tokens/clip.mp4")
    assert found.num_bytes == 3
    assert found.sign


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_file_that_is_not_there_says_so_wherever_it_is_not(tmp_path, scheme):
    source = f"{scheme}{tmp_path}/none.mp4"
    error = tokens([source])[source]
    assert isinstance(error, FileNotFoundError)
    assert error.strerror == "No such file or directory"


def test_what_cannot_be_looked_at_is_an_error_of_its_own(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"one")
    found = tokens([str(tmp_path), "nowhere://a", str(tmp_path / "clip.mp4")])
    folder, unknown, clip = found.values()
    assert isinstance(folder, IsADirectoryError)
    assert folder.strerror == "it is a folder"
    assert str(unknown) == "ValueError: Protocol not known: nowhere"
    assert isinstance(clip, Token)


def test_a_local_file_is_its_own_copy(tmp_path):
    with local_copy(f"{tmp_path}/a.mp4") as path:
        assert path == tmp_path / "a.mp4"


def test_a_file_of_elsewhere_is_copied_for_the_while(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"12345" * 1000)
    with local_copy(f"file://{tmp_path}/a.bin") as path:
        assert path.read_bytes() == b"12345" * 1000
        assert path.parent != tmp_path
    assert not path.exists()
    with pytest.raises(MediaError, match="missing"), local_copy(f"file://{tmp_path}/missing"):
        pass


class Down(LocalFileSystem):  # type: ignore[misc]
    """A store that cannot be reached."""

    protocol = "down"

    def info(self, path, **_):
        raise ConnectionRefusedError(path)

    def get_file(self, rpath, *_, **__):
        raise ConnectionRefusedError(rpath)


def test_what_is_wrong_with_a_copy_names_the_source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    source = f"file://{tmp_path}/a.mp4"
    with pytest.raises(MediaError, match=f"cannot read {source}"), local_copy(source) as path:
        raise MediaError(f"cannot read {path}: it is no video")


def test_a_store_that_does_not_answer_stops_the_work(monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE_S", 0.2)
    fsspec.register_implementation("down", Down, clobber=True)
    with pytest.raises(StorageError, match="has not answered"), local_copy("down://clips/a.mp4"):
        pass
    with pytest.raises(StorageError, match="looking at failed"):
        tokens(["down://clips/a.mp4"])


def test_a_web_server_that_does_not_answer_costs_its_files(monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE_S", 0.2)
    source = "http://127.0.0.1:9/a.mp4"
    with pytest.raises(RetryableError, match="has not answered"), local_copy(source):
        pass
    assert "RetryableError" in str(tokens([source])[source])
