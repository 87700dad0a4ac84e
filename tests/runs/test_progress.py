"""The bar of a run: clips, or chunks where some clips are long."""

import io
import re

import pytest
from tqdm import tqdm

from rayreel.data.storage import Storage
from rayreel.runs.progress import Progress
from rayreel.stages.base import ItemFailure
from rayreel.stages.chunks import chunk_name


@pytest.fixture
def bar():
    with tqdm(total=6, file=io.StringIO(), mininterval=0) as shown:
        yield shown


@pytest.fixture
def progress(bar, tmp_path):
    shown = Progress(bar, 3, Storage(tmp_path))
    shown.expect({"long": 4, "a": 1, "b": 1})
    return shown


def write_chunks(folder, name, count):
    for index in range(count):
        Storage(folder).write_bytes(chunk_name(name, index), b"")


def test_a_clip_counts_as_many_as_it_has_chunks(progress, bar):
    for name, count in (("a", 1), ("long", 5), ("b", 6)):
        progress.finish(name, None, name)
        assert bar.n == count


def test_chunks_count_before_their_clip_is_done(progress, bar, tmp_path):
    for chunks, count in ((1, 1), (3, 3), (4, 3)):
        write_chunks(tmp_path, "long", chunks)
        progress.look()
        assert bar.n == count
    progress.finish("a", None, "a")
    progress.look()
    assert bar.n == 4
    progress.finish("long", None, "long")
    assert bar.n == 5


def test_chunks_of_other_clips_do_not_count(progress, bar, tmp_path):
    write_chunks(tmp_path, "finished-before", 3)
    write_chunks(tmp_path, "a", 1)
    progress.look()
    assert bar.n == 0


def test_failures_are_told_by_name(progress, bar, capsys):
    failure = ItemFailure(
        item_id="a",
        stage="decode",
        error="E",
        message="no disk",
        seed=1,
        attempt=1,
        seconds=0.0,
    )
    progress.finish("a", failure, "fox")
    assert progress.failed == 1
    assert "failed: fox in decode: no disk" in capsys.readouterr().err
    assert re.search("done=0, failed=1, left=2", bar.postfix)
