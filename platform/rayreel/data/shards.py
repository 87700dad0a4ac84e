"""Writes and opens the shards of a dataset: Parquet files with a row group for each sample.

What a shard holds beside tensors is in its footer too, as one JSON text: a reader who looks for
samples learns all of it with one request, where the columns take one for every sample.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save
from torch import Tensor, contiguous_format

from rayreel.data.columns import BLOB, SampleRow, TrainingSample, plain_schema, training_sample
from rayreel.data.dataset import (
    INFO_FILE,
    ChannelStatistics,
    ShardInfo,
    ShardStatistics,
    opened,
)
from rayreel.data.patience import Patience
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError

_ROWS = "rayreel.rows"
_STATISTICS = "rayreel.statistics"

T = TypeVar("T")


def write_shard(
    path: Path, rows: Iterable[SampleRow], *, measures: Sequence[str] = ()
) -> ShardStatistics:
    """Write a shard; of equal rows it has equal bytes.

    One row is in memory at a time, beside what is known of the others.

    Args:
        path: A local file, which is written in place.
        rows: At least one.
        measures: Names of those that have a column; a sample that lacks one has null there.

    Raises:
        ValueError: If there is no row, or one has measures or tensors that there are none of.
    """
    plain = plain_schema(measures)
    columns = plain.append(BLOB)
    kept: dict[str, list[Any]] = {name: [] for name in plain.names}
    statistics = ShardStatistics()
    # Nothing here is worth a dictionary, compression or least and greatest values: a column of a
    # row group has one value, and latents are noise to a compressor.
    with pq.ParquetWriter(
        path,
        columns,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for row in rows:
            values = row.columns()
            if strange := sorted(set(values) - set(kept)):
                raise ValueError(
                    f"sample {row.info.sample_id} has {', '.join(strange)}, of which the shard has "
                    "no column"
                )
            for name, all_values in kept.items():
                all_values.append(values.get(name))
            # Copies: a clip may be its own reference, and the format wants no memory twice.
            blob = save(
                {
                    name: tensor.clone(memory_format=contiguous_format)
                    for name, tensor in row.tensors.items()
                }
            )
            writer.write_table(pa.Table.from_pylist([values | {BLOB.name: blob}], columns))
            statistics += _statistics(row)
        if not statistics.samples:
            raise ValueError(f"{path}: a shard has at least one sample")
        writer.add_key_value_metadata(
            {
                _ROWS: json.dumps(kept, separators=(",", ":")),
                _STATISTICS: statistics.model_dump_json(),
            }
        )
    return statistics


def put_shard(
    storage: Storage, name: str, rows: Iterable[SampleRow], *, measures: Sequence[str] = ()
) -> tuple[ShardInfo, ShardStatistics]:
    """Write a shard of a dataset as a whole; raises as ``write_shard`` does.

    Args:
        storage: Of the dataset.
        name: Of the shard in it, such as ``shards/00000.parquet``.
        rows: At least one.
        measures: Names of those that have a column.
    """
    with storage.local_staging(name) as staged:
        statistics = write_shard(staged, rows, measures=measures)
        with staged.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        info = ShardInfo(
            name=name,
            samples=statistics.samples,
            num_bytes=staged.stat().st_size,
            sha256=digest,
        )
    return info, statistics


class OpenShard:
    """A shard whose footer was read: any sample of it is one request away.

    Every method raises ``RayreelError`` if the shard is missing or damaged, and ``StorageError`` if
    an object store does not answer.

    Attributes:
        info: What the dataset says of it.
    """

    def __init__(self, storage: Storage, info: ShardInfo) -> None:
        """Read the footer."""
        self.info = info
        self._storage = storage
        self._footer: pq.FileMetaData | None = None
        self._footer = self._do("opening", lambda file: file.metadata)
        samples = self._footer.num_row_groups
        if samples != info.samples:
            raise self._damage(f"it has {samples} samples, and {INFO_FILE} says {info.samples}")

    def table(self) -> pa.Table:
        """All columns but the blobs of tensors."""
        assert self._footer is not None, "read first"
        columns = self._footer.schema.to_arrow_schema()
        try:
            columns = columns.remove(columns.get_field_index(BLOB.name))
            kept = json.loads(self._footer.metadata[_ROWS.encode()])
            return pa.Table.from_pydict(kept, columns.remove_metadata())
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise self._damage("its footer does not tell its samples") from error

    def statistics(self) -> ShardStatistics:
        """What the shard holds, as it was counted when it was written."""
        assert self._footer is not None, "read first"
        try:
            found = self._footer.metadata[_STATISTICS.encode()]
            return ShardStatistics.model_validate_json(found)
        except (KeyError, ValueError) as error:
            raise self._damage("its footer has no statistics") from error

    def sample(self, row: int) -> TrainingSample:
        """One sample, with its tensors."""

        def read(file: pq.ParquetFile) -> pa.Table:
            return file.read_row_group(row, use_threads=False)

        values = self._do(f"reading sample {row} of", read).to_pylist()[0]
        try:
            return training_sample(values)
        except ValueError as error:
            raise self._damage(str(error)) from error

    def _do(self, operation: str, work: Callable[[pq.ParquetFile], T]) -> T:
        """Read of the file, for as long as it takes its store to answer."""

        def attempt() -> T:
            with (
                opened(self._storage, self.info.name, self.info.num_bytes) as source,
                # The columns of a sample lie side by side: buffered, they are one request.
                pq.ParquetFile(
                    source,
                    metadata=self._footer,
                    pre_buffer=True,
                    page_checksum_verification=True,
                ) as file,
            ):
                return work(file)

        patience = Patience(self._storage.uri, self._storage.patience_s)
        try:
            return patience(f"{operation} {self.info.name}", attempt)
        except FileNotFoundError as error:
            raise self._damage("it is not there") from error
        except pa.ArrowException as error:
            raise self._damage(str(error)) from error
        except OSError as error:
            # Arrow's word for a file that ends too early or is not what its checksums say.
            if error.errno is None:
                raise self._damage(str(error)) from error
            raise

    def _damage(self, said: str) -> RayreelError:
        where = self._storage.join(self.info.name)
        return RayreelError(
            f"{where} is damaged: {said.strip().rstrip('.')}. Remove it "
            f"and {INFO_FILE}, and run again what wrote them: an encode job has kept what it needs"
        )


def _statistics(row: SampleRow) -> ShardStatistics:
    bucket, latents = row.info.bucket, row.tensors.get("video_latents")
    return ShardStatistics(
        samples=1,
        frames=bucket.num_frames if bucket else 0,
        seconds=row.info.duration_s,
        with_audio=int("audio_latents" in row.tensors),
        buckets={str(bucket): 1} if bucket else {},
        video_latents=None if latents is None else _channels(latents),
    )


def _channels(latents: Tensor) -> ChannelStatistics:
    # In numpy, whose order of addition does not depend on how many threads there are.
    values = latents.float().cpu().numpy().reshape(len(latents), -1).astype(np.float64)
    return ChannelStatistics(
        positions=values.shape[1],
        mean=tuple(values.mean(1).tolist()),
        variance=tuple(values.var(1).tolist()),
    )
