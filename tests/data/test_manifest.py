from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayreel.data.manifest import Row, read_manifest
from rayreel.errors import SpecError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_rows_carry_their_line_numbers(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "a", "seed": 1}\n\n  \n{"prompt": "b\\u2028c"}')
    assert read_manifest(path) == [
        Row(1, {"prompt": "a", "seed": 1}),
        Row(4, {"prompt": "b\u2028c"}),
    ]


def test_line_separators_inside_a_json_string_do_not_end_the_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "b\u2028c\x85d"}\n')
    assert read_manifest(path) == [Row(1, {"prompt": "b\u2028c\x85d"})]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path, kind):
    content = {"jsonl": '{"prompt": "a"}\r\n{"prompt": "b"}\r\n', "csv": "prompt\r\na\r\nb\r\n"}[
        kind
    ]
    path = write(tmp_path / f"a.{kind}", b"\xef\xbb\xbf" + content.encode())
    assert [row.values for row in read_manifest(path)] == [{"prompt": "a"}, {"prompt": "b"}]


def test_jsonl_faults_are_listed_together(tmp_path):
    lines = ['{"prompt": "a"}', '{"prompt": ', "[1, 2]", '"text"', '{"x": NaN}', "null", "{}"]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(SpecError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path} has 5 faulty row(s)")
    assert [f"line {number} " in message for number in range(1, 8)] == [False, *[True] * 5, False]


def test_a_file_of_faults_is_summarised(tmp_path):
    path = write(tmp_path / "a.jsonl", "x\n" * 250)
    with pytest.raises(SpecError, match="250 faulty") as caught:
        read_manifest(path)
    assert str(caught.value).endswith("and 150 more")


def test_nulls_are_absent(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"seed": null, "images": [{"path": "a", "crf": null}, null]}'
    )
    assert read_manifest(path) == [Row(1, {"images": [{"path": "a"}, None]})]


def test_csv_cells_are_text_or_json_and_empty_ones_absent(tmp_path):
    path = write(
        tmp_path / "a.CSV",
        "prompt , seed,images\n"
        'a cat,7,"[{""path"": ""a.png"", ""frame"": 0}]"\n'
        "\n"
        '"two\nlines, here", ,\n'
        "[VISUAL]: a dog,,[]\n",
    )
    assert read_manifest(path) == [
        Row(2, {"prompt": "a cat", "seed": "7", "images": [{"path": "a.png", "frame": 0}]}),
        Row(4, {"prompt": "two\nlines, here"}),
        Row(6, {"prompt": "[VISUAL]: a dog", "images": []}),
    ]


def test_csv_faults_are_listed_together(tmp_path):
    path = write(
        tmp_path / "a.csv",
        'prompt,images\na\nb,c,d\n"a"x,1\nok,\nbad,"[{""path"": }]"\nend,"never closed\n',
    )
    with pytest.raises(SpecError, match="5 faulty") as caught:
        read_manifest(path)
    message = str(caught.value)
    assert [f"line {number} " in message for number in range(1, 8)] == [
        False, True, True, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("header", ["", "a,a\n1,2\n", "a,,b\n1,2,3\n"])
def test_csv_needs_distinct_column_names(tmp_path, header):
    with pytest.raises(SpecError, match=r"a\.csv.*(header|columns)"):
        read_manifest(write(tmp_path / "a.csv", header))


def test_parquet_rows_are_plain_values_without_nulls(tmp_path):
    rows = [
        {"prompt": "a", "seed": 3, "images": [{"path": "x", "crf": None}]},
        {"prompt": "b", "seed": None, "images": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_manifest(tmp_path / "a.parquet") == [
        Row(1, {"prompt": "a", "seed": 3, "images": [{"path": "x"}]}),
        Row(2, {"prompt": "b"}),
    ]


def test_missing_numbers_of_pandas_are_absent(tmp_path):
    pq.write_table(pa.table({"fps": pa.array([24.0, float("nan")])}), tmp_path / "a.parquet")
    assert read_manifest(tmp_path / "a.parquet") == [Row(1, {"fps": 24.0}), Row(2, {})]


def test_other_file_systems_are_read():
    with fsspec.open("memory://lists/a.jsonl", "wb") as file:
        file.write(b'{"prompt": "a"}\n')
    assert read_manifest("memory://lists/a.jsonl") == [Row(1, {"prompt": "a"})]


def test_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(SpecError, match=r"\.jsonl, \.csv, \.parquet"):
        read_manifest(write(tmp_path / "a.yaml", ""))


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv", "missing.parquet"])
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(SpecError, match=name):
        read_manifest(tmp_path / name)


def test_unknown_file_system_is_named():
    with pytest.raises(SpecError, match=r"nowhere://a\.jsonl"):
        read_manifest("nowhere://a.jsonl")


def test_damaged_parquet_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"a\.parquet: it is not a Parquet file"):
        read_manifest(write(tmp_path / "a.parquet", b"PAR1 nothing PAR1"))


def test_text_that_is_not_utf8_names_the_line(tmp_path):
    with pytest.raises(SpecError, match="line 2 is not UTF-8"):
        read_manifest(write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n'))
