"""Rows of a list: captions and media, whatever the columns are called."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayreel.config.encode import EncodeSpec
from rayreel.errors import SpecError
from rayreel.runs.encoding.rows import ClipList


def rows(folder: Path, *values: dict[str, Any], **fields) -> ClipList:
    path = folder / "list.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in values))
    return ClipList(EncodeSpec.model_validate({"dataset": str(path), **fields}))


def test_paths_start_at_the_list_unless_they_are_absolute_or_uris(tmp_path):
    paths = (" a.mp4 ", "/clips/b.mp4", "s3://bucket/c.mp4", "sub/../d.mp4")
    found = rows(tmp_path, *({"video": path} for path in paths))
    assert [row.media["video"] for row in found] == [
        f"{tmp_path}/a.mp4",
        "/clips/b.mp4",
        "s3://bucket/c.mp4",
        f"{tmp_path}/sub/../d.mp4",
    ]


@pytest.mark.parametrize(
    ("values", "media"),
    [
        ({"media_path": "/a"}, {"video": "/a"}),
        ({"video": "/a", "media_path": "/b"}, {"video": "/a"}),
        ({"video": "", "media_path": "/b"}, {"video": "/b"}),
        (
            {"video": "/a", "ref_media_path": "/r", "audio": "/s", "other": "/x"},
            {"video": "/a", "audio": "/s", "reference_video": "/r"},
        ),
    ],
)
def test_usual_columns_have_a_second_name(tmp_path, values, media):
    (found,) = rows(tmp_path, values)
    assert found.media == media


def test_a_column_that_the_spec_names_is_read_and_no_other(tmp_path):
    columns = {"video": "hd", "caption": "text", "name": "key"}
    values = {"hd": "/hd", "media_path": "/small", "text": "A fox.", "key": 7, "caption": "no"}
    small = {"media_path": "/small"}
    found, without = rows(tmp_path, values, small, columns=columns)
    assert (found.name, found.caption, found.media) == ("7", "A fox.", {"video": "/hd"})
    assert without.media == {}
    assert without.fault == "neither 'hd' nor 'audio' names a file"


def test_a_row_without_a_name_is_called_by_its_number(tmp_path):
    named, other = rows(tmp_path, {"video": "/a", "id": "x" * 500}, {"video": "/b"})
    assert (named.name, other.name, other.number) == ("x" * 120, "2", 2)


def test_values_that_are_no_text_are_faults_of_their_row(tmp_path):
    odd, good = rows(tmp_path, {"video": ["/a"], "caption": 5}, {"video": "/b"})
    assert odd.fault == (
        "field 'video': expected a path, got list; where it is no file, name another column as "
        "columns.video; field 'caption': expected text, got int"
    )
    assert (good.fault, good.caption) == ("", "")


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_cells_are_as_good_as_none(tmp_path, blank):
    full, empty = rows(
        tmp_path, {"video": "/a", "audio": blank, "caption": blank}, {"video": blank, "audio": None}
    )
    assert (full.media, full.caption, full.fault) == ({"video": "/a"}, "", "")
    assert empty.fault == "neither 'video' nor 'audio' names a file"


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ((), {"video", "audio", "reference_video", "reference_audio", "video_mask", "audio_mask"}),
        (("audio",), {"video", "reference_video", "video_mask"}),
        (("video",), {"audio", "reference_audio", "audio_mask"}),
        (("reference", "masks"), {"video", "audio"}),
        (
            ("text",),
            {"video", "audio", "reference_video", "reference_audio", "video_mask", "audio_mask"},
        ),
    ],
)
def test_what_is_skipped_is_not_even_looked_at(tmp_path, skip, left):
    columns = ("video", "audio", "reference_video", "reference_audio", "video_mask", "audio_mask")
    (found,) = rows(tmp_path, {name: f"/{name}" for name in columns}, skip=skip)
    assert set(found.media) == left


@pytest.mark.parametrize(
    ("values", "fields", "said"),
    [
        (
            {"videos": "/a", "caption": "x"},
            {},
            "no row has video or audio; expected the column 'video' or 'audio', found 'caption', "
            "'videos'; is it 'videos'? Set columns.video",
        ),
        ({"x": "/a"}, {}, "found 'x'; set columns.video"),
        ({}, {}, "found none; set columns.video"),
        (
            {"video": "/a"},
            {"skip": ["video"]},
            "no row has audio; expected the column 'audio', found 'video' (video is skipped); "
            "set columns.audio",
        ),
        ({"video": "/a"}, {"skip": ["video", "audio"]}, "expected video or audio to be left"),
    ],
)
def test_a_list_without_media_says_what_it_has_instead(tmp_path, values, fields, said):
    with pytest.raises(SpecError) as caught:
        rows(tmp_path, values, **fields)
    assert said in str(caught.value)


def test_an_empty_list_is_refused(tmp_path):
    with pytest.raises(SpecError, match="has no rows"):
        rows(tmp_path)


def test_lists_are_read_again_and_again_whatever_their_format(tmp_path):
    pq.write_table(
        pa.table({"media_path": ["a.mp4", None], "audio": [None, "b.wav"]}), tmp_path / "l.parquet"
    )
    (tmp_path / "l.csv").write_text("media_path,audio\na.mp4,\n,b.wav\n")
    lists = [ClipList(EncodeSpec(dataset=f"{tmp_path}/l.{kind}")) for kind in ("parquet", "csv")]
    media = [{"video": f"{tmp_path}/a.mp4"}, {"audio": f"{tmp_path}/b.wav"}]
    for found in lists:
        assert [row.media for row in found] == [row.media for row in found] == media
        assert (found.num_rows, found.has_video) == (2, True)
