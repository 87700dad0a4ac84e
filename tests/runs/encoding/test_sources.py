"""What file systems say of sources, and whether a change of a file shows."""

import os

import fsspec
import pytest

from rayreel.runs.encoding.sources import Token, tokens


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
