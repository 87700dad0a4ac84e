"""Reading a dataset back: the same samples, one at a time, each once, from wherever it lies."""

import json
import pickle
from itertools import chain, pairwise
from uuid import uuid4

import pyarrow.compute as pc
import pytest
from s3fs.core import S3File
from torch.utils.data import DataLoader

from rayreel.data.dataset import INFO_FILE, DatasetInfo, ShardStatistics
from rayreel.data.reader import LatentDataset, LatentStream
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from tests.data.encoded import assert_same_tensors, encoded, numbered, row

SAMPLES = 23


@pytest.fixture(params=["local", "memory", "s3"])
def anywhere(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_server').url}/{uuid4().hex}"
    return str(tmp_path / "a [b]*") if request.param == "local" else f"memory://{uuid4().hex}"


@pytest.fixture
def dataset(tmp_path):
    numbered(tmp_path / "set", SAMPLES, per_shard=4)
    return tmp_path / "set"


def rows_of(samples):
    return [sample.info.row for sample in samples]


def same(samples):
    return samples


def test_samples_come_back_unchanged(anywhere):
    written = [
        row(0), row(1, kind="image"), row(2, kind="all", split_text=True), row(3, kind="sound"),
    ]  # fmt: skip
    info = encoded(anywhere, [written[:3], written[3:]])
    dataset = LatentDataset(anywhere)
    assert dataset.info == info
    assert len(dataset) == 4
    for expected, read in zip(written, map(dataset.__getitem__, range(4)), strict=True):
        assert read.info == expected.info
        assert_same_tensors(read, expected)
        assert read.text is not None
        assert read.text.length == 16
        assert (read.text.audio is read.text.video) == ("text" in expected.tensors)


def test_columns_tell_shapes_without_tensors(anywhere):
    shards = [[row(0), row(1, kind="image")], [row(2, kind="sound")]]
    encoded(anywhere, shards)
    table = LatentDataset(anywhere).columns()
    assert "tensors" not in table.column_names
    shapes = table.select(["row", "bucket", "latent_frames", "audio_steps"]).to_pylist()
    assert [tuple(shape.values()) for shape in shapes] == [
        (1, "96x64x9", 2, 5), (2, "64x64x1", 1, None), (3, None, None, 5),
    ]  # fmt: skip
    silent = table.filter(pc.is_null(table["audio_steps"]))
    assert silent["caption"].to_pylist() == ["A fox, number 1."]


def test_columns_are_those_that_are_asked_for(dataset):
    table = LatentDataset(dataset).columns(["name", "bucket"])
    assert table.column_names == ["name", "bucket"]
    assert table.num_rows == len(LatentDataset(dataset))
    with pytest.raises(KeyError, match="colour"):
        LatentDataset(dataset).columns(["colour"])


def test_shards_with_other_measures_make_one_table(tmp_path):
    one, other = row(0), row(1)
    encoded(tmp_path, [[one]])
    encoded(tmp_path / "b", [[other]], measures=("black",))
    first, second = (LatentDataset(folder).columns() for folder in (tmp_path, tmp_path / "b"))
    assert set(first.column_names) - set(second.column_names) == {"measure_silence"}
    empty = DatasetInfo(num_samples=0, statistics=ShardStatistics(), shards=()).model_dump_json()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / INFO_FILE).write_text(empty)
    assert LatentDataset(tmp_path / "c").columns().num_rows == 0


def test_a_sample_is_read_without_the_others(dataset):
    shard = dataset / "shards" / "00001.parquet"
    data = bytearray(shard.read_bytes())
    data[data.index(row(4).tensors["audio_latents"].numpy().tobytes())] ^= 1
    shard.write_bytes(data)
    read = LatentDataset(dataset)
    assert rows_of(read[index] for index in (5, 6, 7)) == [6, 7, 8]
    with pytest.raises(RayreelError, match=r"00001\.parquet is damaged: .*CRC"):
        read[4]


def test_numbers_are_those_of_the_list(dataset):
    read = LatentDataset(dataset)
    assert rows_of(read[index] for index in (0, 3, 4, 22)) == [1, 4, 5, 23]
    for index in (-1, 23):
        with pytest.raises(IndexError, match=f"sample {index} of 23"):
            read[index]


def test_a_stream_without_a_seed_keeps_the_order_of_the_list(dataset):
    assert rows_of(LatentStream(dataset)) == list(range(1, SAMPLES + 1))


def test_an_order_depends_on_seed_and_epoch_alone(dataset):
    def order(seed, epoch):
        stream = LatentStream(dataset, seed=seed)
        stream.set_epoch(epoch)
        return rows_of(stream)

    assert order(1, 0) == order(1, 0) != list(range(1, SAMPLES + 1))
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert sorted(order(1, 1)) == list(range(1, SAMPLES + 1))


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("world", [1, 3, 30])
def test_ranks_share_out_every_sample_once(dataset, seed, world):
    shares = [rows_of(LatentStream(dataset, seed=seed, rank=r, world=world)) for r in range(world)]
    assert sorted(chain.from_iterable(shares)) == list(range(1, SAMPLES + 1))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_neighbours_come_apart_across_shards(tmp_path):
    numbered(tmp_path, 64, per_shard=4)
    order = rows_of(LatentStream(tmp_path, seed=0))
    shards = [(number - 1) // 4 for number in order]
    assert sum(one == other for one, other in pairwise(shards)) < 16
    # Half of the shards at a time.
    assert len(set(shards[:32])) == 8


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loading_processes_share_out_every_sample_once_in_each_epoch(dataset, start):
    stream = LatentStream(dataset, seed=5)
    # What is open here must not be used there.
    next(iter(stream))
    loader = DataLoader(
        stream,
        batch_size=4,
        num_workers=2,
        collate_fn=same,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        orders.append(rows_of(sample for batch in loader for sample in batch))
    assert [sorted(order) for order in orders] == [list(range(1, SAMPLES + 1))] * 2
    assert orders[0] != orders[1]


def test_loading_processes_read_from_an_object_store(s3_server):
    uri = f"{s3_server.url}/{uuid4().hex}"
    numbered(uri, 6, per_shard=4)
    dataset = LatentDataset(uri)
    assert dataset[5].info.row == 6
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, collate_fn=same, multiprocessing_context="fork"
    )
    assert rows_of(sample for batch in loader for sample in batch) == [1, 2, 3, 4, 5, 6]


def test_an_object_store_is_asked_little(s3_server, monkeypatch):
    def counted(file, start, end):
        asked.append((start, end))
        return fetch(file, start, end)

    uri, fetch = f"{s3_server.url}/{uuid4().hex}", S3File._fetch_range
    asked: list[tuple[int, int]] = []
    size = numbered(uri, 40, per_shard=40).shards[0].num_bytes
    monkeypatch.setattr(S3File, "_fetch_range", counted)
    dataset = LatentDataset(uri)
    dataset.columns()
    assert len(asked) <= 3
    dataset[0]
    asked.clear()
    dataset[7]
    assert len(asked) == 1
    assert asked[0][1] - asked[0][0] < size / 40


def test_a_reader_can_be_sent_to_another_process(dataset):
    read = LatentDataset(dataset)
    assert read[9].info.row == 10
    assert pickle.loads(pickle.dumps(read))[10].info.row == 11


def test_a_rank_that_there_is_not_is_refused(dataset):
    with pytest.raises(ValueError, match="rank=2 should be from 0 to 1"):
        LatentStream(dataset, rank=2, world=2)


def edited(dataset, **fields):
    path = dataset / INFO_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / INFO_FILE).unlink(), "is not a dataset: it has no dataset.json"),
        (lambda folder: (folder / INFO_FILE).write_text("{"), "dataset.json is damaged, at its"),
        (lambda folder: edited(folder, schema_version=2), "schema_version 2, but .* reads 1: use"),
        (lambda folder: edited(folder, schema_version=2, new=1), "schema_version 2, but"),
        (lambda folder: edited(folder, num_samples=9), "num_samples=9, but its shards have 23"),
        (lambda folder: edited(folder, shards="all"), "damaged, at shards: "),
    ],
)
def test_what_is_no_dataset_is_told_with_what_to_do(dataset, damage, expected):
    damage(dataset)
    with pytest.raises(RayreelError, match=expected):
        LatentDataset(dataset)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "it is not there"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), ""),
        (lambda path: path.write_bytes(b""), ""),
        (
            lambda path: path.write_bytes((path.parent / "00005.parquet").read_bytes()),
            "it has 3 samples, and dataset.json says 4",
        ),
    ],
)
def test_a_damaged_shard_is_named_with_what_to_do(dataset, damage, expected):
    damage(dataset / "shards" / "00002.parquet")
    read = LatentDataset(dataset)
    assert read[0].info.row == 1
    for use in (lambda: read[8], read.columns):
        with pytest.raises(RayreelError, match=f"00002.parquet is damaged: {expected}.*Remove it"):
            use()


def test_a_name_that_leaves_the_dataset_is_not_followed(dataset):
    info = LatentDataset(dataset).info
    shard = info.shards[0].model_dump() | {"name": "../outside.parquet"}
    edited(dataset, shards=[shard], num_samples=4)
    with pytest.raises(RayreelError, match=r"'\.\./outside\.parquet' is not a name in"):
        LatentDataset(dataset)


def test_published_datasets_have_equal_bytes(tmp_path):
    first, second = (numbered(tmp_path / name, 3, per_shard=2) for name in "ab")
    assert first == second
    for name in (INFO_FILE, "shards/00000.parquet", "shards/00001.parquet"):
        assert Storage(tmp_path / "a").read_bytes(name) == Storage(tmp_path / "b").read_bytes(name)
