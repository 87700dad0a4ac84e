import io
import json
import tempfile
import tracemalloc
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayreel.data import json_list
from rayreel.data.manifest import Manifest, Row
from rayreel.errors import SpecError

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def read(uri: str | Path) -> list[Row]:
    return list(Manifest(uri))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_rows_carry_their_line_numbers(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "a", "seed": 1}\n\n  \n{"prompt": "b\\u2028c"}')
    assert read(path) == [
        Row(1, {"prompt": "a", "seed": 1}),
        Row(4, {"prompt": "b\u2028c"}),
    ]


def test_line_separators_inside_a_json_string_do_not_end_the_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "b\u2028c\x85d"}\n')
    assert read(path) == [Row(1, {"prompt": "b\u2028c\x85d"})]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path, kind):
    content = {
        "jsonl": '{"prompt": "a"}\r\n{"prompt": "b"}\r\n',
        "csv": "prompt\r\na\r\nb\r\n",
        "json": '[\r\n{"prompt": "a"},\r\n{"prompt": "b"}\r\n]\r\n',
    }[kind]
    path = write(tmp_path / f"a.{kind}", b"\xef\xbb\xbf" + content.encode())
    assert [row.values for row in read(path)] == [{"prompt": "a"}, {"prompt": "b"}]


def test_jsonl_faults_are_listed_together(tmp_path):
    lines = ['{"prompt": "a"}', '{"prompt": ', "[1, 2]", '"text"', '{"x": NaN}', "null", "{}"]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(SpecError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} has 5 faulty row(s)")
    assert [f"line {number} " in message for number in range(1, 8)] == [False, *[True] * 5, False]


def test_a_file_of_faults_is_summarised(tmp_path):
    path = write(tmp_path / "a.jsonl", "x\n" * 250)
    with pytest.raises(SpecError, match="250 faulty") as caught:
        read(path)
    assert str(caught.value).endswith("and 150 more")


def test_nulls_are_absent(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"seed": null, "images": [{"path": "a", "crf": null}, null]}'
    )
    assert read(path) == [Row(1, {"images": [{"path": "a"}, None]})]


def test_csv_cells_are_text_or_json_and_empty_ones_absent(tmp_path):
    path = write(
        tmp_path / "a.CSV",
        "prompt , seed,images\n"
        'a cat,7,"[{""path"": ""a.png"", ""frame"": 0}]"\n'
        "\n"
        '"two\nlines, here", ,\n'
        "[VISUAL]: a dog,,[]\n",
    )
    assert read(path) == [
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
        read(path)
    message = str(caught.value)
    assert [f"line {number} " in message for number in range(1, 8)] == [
        False, True, True, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("header", ["", "a,a\n1,2\n", "a,,b\n1,2,3\n"])
def test_csv_needs_distinct_column_names(tmp_path, header):
    with pytest.raises(SpecError, match=r"a\.csv.*(header|columns)"):
        read(write(tmp_path / "a.csv", header))


def test_parquet_rows_are_plain_values_without_nulls(tmp_path):
    rows = [
        {"prompt": "a", "seed": 3, "images": [{"path": "x", "crf": None}]},
        {"prompt": "b", "seed": None, "images": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        Row(1, {"prompt": "a", "seed": 3, "images": [{"path": "x"}]}),
        Row(2, {"prompt": "b"}),
    ]


def test_missing_numbers_of_pandas_are_absent(tmp_path):
    pq.write_table(pa.table({"fps": pa.array([24.0, float("nan")])}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [Row(1, {"fps": 24.0}), Row(2, {})]


def test_other_file_systems_are_read():
    with fsspec.open("memory://lists/a.jsonl", "wb") as file:
        file.write(b'{"prompt": "a"}\n')
    assert read("memory://lists/a.jsonl") == [Row(1, {"prompt": "a"})]


def test_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(SpecError, match=r"\.jsonl, \.csv, \.parquet, \.json"):
        read(write(tmp_path / "a.yaml", ""))


def test_json_rows_are_counted_from_one(tmp_path):
    path = write(tmp_path / "a.json", '\n[ {"prompt": "a", "seed": null},\n\n{"x": [{}, "]"]} ]\n')
    assert read(path) == [Row(1, {"prompt": "a"}), Row(2, {"x": [{}, "]"]})]


@pytest.mark.parametrize("content", ["[]", " [\n] "])
def test_an_empty_json_list_has_no_rows(tmp_path, content):
    assert read(write(tmp_path / "a.json", content)) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"prompt": "a"}', r"should hold a list, \[\.\.\.\], but starts with '{'"),
        ("", "should hold a list, .* but starts with ''"),
        ('[{"a": 1}]\n\n {"b": 2}', "something behind its list, at line 3, column 2"),
    ],
)
def test_a_json_file_holds_one_list(tmp_path, content, expected):
    with pytest.raises(SpecError, match=rf"a\.json: .*{expected}"):
        read(write(tmp_path / "a.json", content))


def test_json_faults_are_listed_together(tmp_path):
    values = ['{"prompt": "a"}', "[1, 2]", '"text"', '{"x": [NaN, 1]}', "null", "12", "{}"]
    path = write(tmp_path / "a.json", f"[{','.join(values)}, {{'x'}}, 1]")
    with pytest.raises(SpecError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} has 6 faulty row(s)")
    assert [f"row {number} " in message for number in range(1, 10)] == [
        False, True, True, True, True, True, False, True, False,
    ]  # fmt: skip
    assert "row 4 is not JSON: NaN is not a JSON number" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            '[\n{"a": 1}\n{"b": 2}]',
            "row 2 is not JSON: Expecting ',' or ']' at line 3, column 1",
        ),
        ('[{"a": 1},\n ]', "row 2 is not JSON: Expecting value at line 2, column 2"),
        ('[{"a": 1}, {"b": 2}', "row 3 is not JSON: Expecting ',' or ']' at line 1, column 20"),
        ('[{"a": 1}, {"b":\n"2', "row 2 is not JSON: Unterminated string .* at line 2, column 1"),
    ],
)
def test_where_a_json_list_is_damaged_is_told(tmp_path, content, expected):
    with pytest.raises(SpecError, match=expected):
        read(write(tmp_path / "a.json", content))


def test_damage_far_into_a_json_list_is_found_where_it_is(tmp_path):
    rows = [f'{{"prompt": "{"fox " * 50}", "seed": {seed}}}' for seed in range(5000)]
    path = write(tmp_path / "a.json", "[\n" + ",\n".join([*rows, '{"seed" 1}', *rows]) + "]")
    with pytest.raises(SpecError, match=r"row 5001 is not JSON: .* at line 5002, column 9$"):
        read(path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(), _JSON), max_size=8), st.integers(0, 2))
def test_a_json_list_is_read_as_json_reads_it_wherever_pieces_end(rows, indent):
    for piece in (1, 2, 7):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_list, "_PIECE", piece)
            text = json.dumps(rows, indent=indent, ensure_ascii=indent == 1)
            assert [found.value for found in json_list.elements(io.StringIO(text))] == rows


def test_one_element_of_a_json_list_is_in_memory_at_a_time(tmp_path):
    rows = ({"prompt": "a fox in the snow " * 20, "seed": seed} for seed in range(20_000))
    path = write(tmp_path / "a.json", "[" + ",".join(map(json.dumps, rows)) + "]")
    tracemalloc.start()
    count = sum(1 for _ in Manifest(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert most < 2**20 < path.stat().st_size


@pytest.mark.parametrize(
    "name", ["missing.jsonl", "missing.csv", "missing.parquet", "missing.json"]
)
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(SpecError, match=name):
        read(tmp_path / name)


def test_unknown_file_system_is_named():
    with pytest.raises(SpecError, match=r"nowhere://a\.jsonl"):
        read("nowhere://a.jsonl")


def test_damaged_parquet_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"a\.parquet: it is not a Parquet file"):
        read(write(tmp_path / "a.parquet", b"PAR1 nothing PAR1"))


def test_text_that_is_not_utf8_names_the_line(tmp_path):
    with pytest.raises(SpecError, match="line 2 is not UTF-8"):
        read(write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n'))


CONTENT = {
    "a.jsonl": '{"prompt": "a"}\n\n{"prompt": "b"}\n{"prompt": "c"}\n',
    "a.csv": 'prompt\n"a\na"\nb\n\nc\n',
    "a.json": '[{"prompt": "a"}, {"prompt": "b"},{"prompt": "c"}]',
}


@pytest.fixture(params=[*CONTENT, "a.parquet"])
def manifest(request, tmp_path) -> Manifest:
    path = tmp_path / request.param
    if request.param in CONTENT:
        write(path, CONTENT[request.param])
    else:
        rows = [{"prompt": f"{number}"} for number in range(2000)]
        pq.write_table(pa.Table.from_pylist(rows), path)
    return Manifest(path)


def test_a_list_can_be_read_again_and_side_by_side(manifest):
    first, second = iter(manifest), iter(manifest)
    assert next(first) == next(second)
    assert list(first) == list(second) != []


def test_wanted_rows_are_those_of_the_whole_list(manifest):
    rows = list(manifest)
    assert list(manifest.rows(row.number for row in rows)) == rows
    assert list(manifest.rows([rows[-1].number])) == rows[-1:]
    assert list(manifest.rows([rows[0].number, rows[-1].number])) == [rows[0], rows[-1]]
    assert list(manifest.rows([])) == []
    assert list(manifest.rows([10**6])) == []


def test_rows_that_are_not_wanted_are_not_looked_at(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "a"}\nno JSON\n{"prompt": "b"}\n')
    assert [row.number for row in Manifest(path).rows([1, 3])] == [1, 3]


def test_what_is_wanted_is_asked_for_row_by_row(manifest):
    asked: list[int] = []
    numbers = [row.number for row in manifest]
    rows = manifest.rows(number for number in numbers if asked.append(number) is None)  # type: ignore[func-returns-value]
    next(rows)
    assert asked == numbers[:1]


def test_rows_before_a_fault_are_there_before_it_is_told(tmp_path):
    rows = iter(Manifest(write(tmp_path / "a.jsonl", '{"prompt": "a"}\n[]\n')))
    assert next(rows) == Row(1, {"prompt": "a"})
    with pytest.raises(SpecError, match="line 2"):
        next(rows)


def test_a_list_from_elsewhere_is_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with fsspec.open("memory://lists/b.jsonl", "wb") as file:
        file.write(b'{"prompt": "a"}\n')
    manifest = Manifest("memory://lists/b.jsonl")
    fsspec.filesystem("memory").rm("/lists/b.jsonl")
    assert list(manifest) == list(manifest) == [Row(1, {"prompt": "a"})]
    assert len(list(tmp_path.iterdir())) == 1
    del manifest
    assert not list(tmp_path.iterdir())


def test_a_long_list_is_read_in_little_memory(tmp_path):
    rows = [{"prompt": "a fox in the snow " * 20, "seed": seed} for seed in range(20_000)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", use_dictionary=False)
    manifest = Manifest(path)
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for row in manifest if row.number % 500 == 0)
    assert most - before < 4 * 2**20 < path.stat().st_size


def test_a_list_that_grew_is_not_read_on(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "a"}\n')
    manifest = Manifest(path)
    assert len(list(manifest)) == 1
    write(path, '{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(SpecError, match=r"a\.jsonl changed .* it had 16 bytes then"):
        next(iter(manifest))
