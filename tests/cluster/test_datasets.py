"""Encoded datasets in Ray Data."""

from uuid import uuid4

import pytest
from fsspec.config import conf

from rayreel.cluster.datasets import ray_dataset, samples
from rayreel.errors import RayreelError
from tests.data.encoded import assert_same_tensors, encoded, row
from tests.s3 import KEY, SECRET


@pytest.mark.ray
@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.slow)])
def test_samples_come_back_through_ray_data(ray_cluster, where, tmp_path, request, monkeypatch):
    uri = str(tmp_path / "a=[b]")
    if where == "s3":
        server = request.getfixturevalue("s3_server")
        uri = f"{server.url}/{uuid4().hex}"
        # Workers may have started before the server, and do not have its settings.
        settings = {"key": KEY, "secret": SECRET, "endpoint_url": server.endpoint}
        monkeypatch.setitem(conf, "s3", settings)
    rows = [row(0), row(1, kind="image"), row(2, kind="all", split_text=True), row(3, kind="sound")]
    encoded(uri, [rows[:3], rows[3:]])
    dataset = ray_dataset(uri)
    batches = dataset.iter_batches(batch_size=3, batch_format="pyarrow")
    read = sorted((one for batch in batches for one in samples(batch)), key=lambda s: s.info.row)
    assert [sample.info for sample in read] == [one.info for one in rows]
    for sample, expected in zip(read, rows, strict=True):
        assert_same_tensors(sample, expected)
    frames = dataset.select_columns(["row", "latent_frames"]).take_all()
    assert {one["row"]: one["latent_frames"] for one in frames} == {1: 2, 2: 1, 3: 2, 4: None}


def test_what_is_no_dataset_is_told_before_ray_is_asked(tmp_path):
    with pytest.raises(RayreelError, match="is not a dataset"):
        ray_dataset(tmp_path)
