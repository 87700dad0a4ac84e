"""Shards: equal bytes for equal rows, one row in memory, and what people read of them."""

import dataclasses
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rayreel.data.columns import SampleRow, training_sample
from rayreel.data.shards import write_shard
from tests.data.encoded import BUCKETS, MEASURES, row

KINDS = ("video", "image", "all", "sound")


@pytest.fixture
def rows():
    return [row(number, kind=kind) for number, kind in enumerate(KINDS)]


def written(path, rows, **options):
    write_shard(path, rows, measures=MEASURES, **options)
    return path.read_bytes()


def changed(one: SampleRow, **fields) -> SampleRow:
    return dataclasses.replace(one, info=one.info.model_copy(update=fields))


def test_equal_rows_make_equal_bytes(rows, tmp_path):
    assert written(tmp_path / "a", rows) == written(tmp_path / "b", rows)
    other = [*rows[:-1], changed(rows[-1], fps=25.0)]
    assert written(tmp_path / "c", other) != written(tmp_path / "a", rows)


def test_bytes_depend_on_no_order_of_names_and_no_process(rows, tmp_path):
    turned = [
        dataclasses.replace(one, tensors=dict(reversed(list(one.tensors.items())))) for one in rows
    ]
    assert written(tmp_path / "a", turned) == written(tmp_path / "b", rows)
    script = (
        "import sys; from pathlib import Path; from rayreel.data.shards import write_shard; "
        "from tests.data.encoded import MEASURES, row; "
        f"write_shard(Path(sys.argv[1]), [row(n, kind=k) for n, k in enumerate({KINDS})], "
        "measures=MEASURES)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "other"], check=True, timeout=100)
    assert (tmp_path / "other").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_column_is_plain_for_whoever_reads_parquet(rows, tmp_path):
    written(tmp_path / "a.parquet", rows)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["bucket"].to_pylist() == [str(BUCKETS[0]), str(BUCKETS[1]), str(BUCKETS[0]), None]
    assert table["width"].to_pylist() == [96, 64, 96, None]
    assert table["latent_frames"].to_pylist() == [2, 1, 2, None]
    assert table["latent_width"].to_pylist() == [3, 2, 3, None]
    assert table["audio_steps"].to_pylist() == [5, None, 5, 5]
    assert table["reference_height"].to_pylist() == [None, None, 1, None]
    assert table["reference_audio_steps"].to_pylist() == [None, None, 3, None]
    assert table["parts"][1].as_py() == ["text", "video_latents"]
    assert table["notes"].to_pylist() == [[], ["odd"], [], ["odd"]]
    assert table["measure_black"].to_pylist() == [0, 0.1, 0.2, 0.3]
    assert table["measure_silence"].null_count == 4
    assert table.column_names[-1] == "tensors"


def test_a_clip_may_be_its_own_reference(tmp_path):
    one = row(0)
    latents = one.tensors["video_latents"]
    both = dataclasses.replace(one, tensors={**one.tensors, "reference_latents": latents})
    written(tmp_path / "own", [both])
    (values,) = pq.read_table(tmp_path / "own").to_pylist()
    reference = training_sample(values).reference_latents
    assert reference is not None
    assert torch.equal(reference, latents)


def test_each_sample_is_a_row_group(rows, tmp_path):
    written(tmp_path / "a.parquet", rows)
    with pq.ParquetFile(tmp_path / "a.parquet") as shard:
        assert shard.num_row_groups == len(rows)
        assert shard.read_row_group(2)["row"].to_pylist() == [3]


def test_one_row_is_in_memory_at_a_time(tmp_path):
    blob = torch.zeros(8, 2**15, 16)

    def large():
        for number in range(12):
            one = row(number)
            yield dataclasses.replace(one, tensors={**one.tensors, "audio_latents": blob})
            held.append(pa.total_allocated_bytes() - before)

    held: list[int] = []
    before = pa.total_allocated_bytes()
    write_shard(tmp_path / "a", large(), measures=MEASURES)
    assert max(held) < 2 * blob.nbytes < (tmp_path / "a").stat().st_size / 5


def test_statistics_are_those_of_all_samples(rows, tmp_path):
    statistics = write_shard(tmp_path / "a", rows, measures=MEASURES)
    assert (statistics.samples, statistics.frames, statistics.with_audio) == (4, 19, 3)
    assert statistics.seconds == pytest.approx(1.5)
    assert statistics.buckets == {str(BUCKETS[0]): 2, str(BUCKETS[1]): 1}
    values = torch.cat([r.tensors["video_latents"].flatten(1) for r in rows[:3]], 1).double()
    found = statistics.video_latents
    assert found is not None
    assert found.positions == values.shape[1]
    assert found.mean == pytest.approx(values.mean(1).tolist(), abs=1e-12)
    assert found.variance == pytest.approx(values.var(1, correction=0).tolist(), abs=1e-12)


def test_statistics_of_shards_add_up_to_those_of_the_whole(rows, tmp_path):
    whole = write_shard(tmp_path / "a", rows, measures=MEASURES)
    first, second, third = (
        write_shard(tmp_path / "b", part, measures=MEASURES)
        for part in (rows[:1], rows[1:3], rows[3:])
    )
    added, latents = first + second + third, whole.video_latents
    assert added.video_latents is not None
    assert latents is not None
    assert added.model_copy(update={"video_latents": latents}) == whole
    assert added.video_latents.positions == latents.positions
    assert added.video_latents.mean == pytest.approx(latents.mean, abs=1e-12)
    assert added.video_latents.variance == pytest.approx(latents.variance, abs=1e-12)
    assert json.loads(whole.model_dump_json())["buckets"] == {"64x64x1": 1, "96x64x9": 2}


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"latents": torch.zeros(1)}, "no tensor is called 'latents'"),
        ({"video_latents": torch.zeros(1, 1, 1, 1)}, r"bfloat16 of shape \(C, F, H, W\), not .*32"),
        ({"audio_latents": torch.zeros(8, 16)}, r"float32 of shape \(C, T, D\), not .*\(8, 16\)"),
        ({"text_video": torch.zeros(1, 1).bfloat16()}, "or text_video and text_audio, not text"),
        ({"text": torch.zeros(17, 1).bfloat16()}, "text of 17 tokens .* text_length=16"),
    ],
)
def test_what_is_no_tensor_of_a_sample_is_refused(tensors, expected, tmp_path):
    one = row(7)
    with pytest.raises(ValueError, match=f"sample 0+7.*{expected}"):
        write_shard(
            tmp_path / "a",
            [dataclasses.replace(one, tensors=dict(one.tensors) | tensors)],
            measures=MEASURES,
        )


def test_a_measure_without_a_column_and_a_shard_without_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has measure_black, of which the shard has no column"):
        write_shard(tmp_path / "a", [row(0)])
    with pytest.raises(ValueError, match="at least one sample"):
        write_shard(tmp_path / "a", [])
