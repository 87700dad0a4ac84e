"""The bar of an encode job tells of rows, and of items of the pass at work."""

import io

import pytest
from tqdm import tqdm

from rayreel.runs.encoding import progress
from rayreel.runs.encoding.progress import RowProgress, following_rows


@pytest.fixture
def shown():
    """A bar, and what it shows right now."""
    text = io.StringIO()
    with tqdm(total=10, file=text, unit="row", mininterval=0, ascii=True, ncols=200) as bar:
        yield RowProgress(bar), lambda: str(bar), text


def test_items_of_a_pass_are_counted_and_start_anew_with_the_next(shown):
    bar, line, _ = shown
    bar.enter("latents", 3)
    bar.advance()
    assert "encoding clips" in line()
    assert "items=1/3" in line()
    bar.enter("shards", 2)
    assert "writing shards" in line()
    assert "items=0/2" in line()


def test_rows_are_counted_when_they_are_done_with(shown):
    bar, line, _ = shown
    bar.enter("scan", 4)
    bar.advance()
    assert "0/10" in line()
    bar.settle(4, {"done": 3, "failed": 1})
    assert "4/10" in line()
    assert "done=3, failed=1" in line()
    assert "items" not in line()


def test_every_pass_has_words(shown):
    bar, line, _ = shown
    for name in ("scan", "caption", "text", "latents", "shards"):
        bar.enter(name, 1)
        assert progress._WORDS[name] in line()


def test_lines_are_written_beside_the_bar(capsys):
    with following_rows(3) as bar:
        bar.tell("failed: fox: no such file")
        bar.settle(3, {"done": 2})
    said = capsys.readouterr()
    assert "failed: fox: no such file\n" in said.err
    assert "3/3" in said.err
    assert said.out == ""
