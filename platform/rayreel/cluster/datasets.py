"""Encoded datasets in Ray Data."""

from pathlib import Path

import fsspec
import pyarrow as pa
import ray.data
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.data import Dataset

from rayreel.data.columns import TrainingSample, training_sample
from rayreel.data.dataset import read_info
from rayreel.data.storage import Storage


def ray_dataset(uri: str | Path) -> Dataset:
    """An encoded dataset as a ``ray.data.Dataset``: a row for each sample, with all its columns.

    Where columns are selected, tensors are read only if theirs is among them. ``samples`` makes
    tensors of batches whose format is ``pyarrow``.

    Args:
        uri: Folder or URI of the dataset, which all workers can reach.

    Raises:
        RayreelError: If there is no dataset, or one that this version cannot read.
    """
    info = read_info(Storage(uri))
    file_system, root = fsspec.url_to_fs(str(uri))
    return ray.data.read_parquet(
        [f"{root.rstrip('/')}/{shard.name}" for shard in info.shards],
        filesystem=PyFileSystem(FSSpecHandler(file_system)),
        # The folders of a dataset's path are no columns.
        partitioning=None,
    )


def samples(batch: pa.Table) -> list[TrainingSample]:
    """Samples of a batch whose format is ``pyarrow``.

    Raises:
        ValueError: If a row is not that of a sample.
    """
    return [training_sample(values) for values in batch.to_pylist()]
