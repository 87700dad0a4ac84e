"""Reads encoded datasets for training, from a local disk or an object store, a sample at a time."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from rayreel.data.columns import TrainingSample, plain_schema
from rayreel.data.dataset import ShardInfo, read_info
from rayreel.data.shards import OpenShard
from rayreel.data.storage import Storage
from rayreel.types import seeded_generator

# A footer takes some megabytes of memory, and milliseconds to read again.
_OPEN = 16
_MIXED = 8
# Object stores answer slowly, and many questions at a time.
_READERS = 16


class LatentDataset(Dataset[TrainingSample]):
    """Samples of an encoded dataset by number, in the order of its list.

    A sample is read alone, not its shard. Processes that load side by side may share one.

    Attributes:
        info: What is in ``dataset.json``.
    """

    def __init__(self, uri: str | Path) -> None:
        """Read ``dataset.json``.

        Args:
            uri: Folder or URI of the dataset.

        Raises:
            RayreelError: If there is none, or one that this version cannot read.
        """
        self._storage = Storage(uri)
        self.info = read_info(self._storage)
        self._ends = list(accumulate(shard.samples for shard in self.info.shards))
        self._open: OrderedDict[int, OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: whoever is sent it reads other samples."""
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        """Number of samples."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> TrainingSample:
        """Read a sample.

        Args:
            index: From 0.

        Raises:
            IndexError: If there are not so many.
            RayreelError: If its shard is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        return self._shard(number).sample(index - self.samples_of(number).start)

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """All that is known of all samples beside their tensors: a row for each, in order.

        Shapes, sizes and captions are there, so that samples can be chosen and put into batches of
        one shape before any is read; of each shard, only the footer is.

        Args:
            names: Of columns that every dataset has; by default all columns. Of a large dataset,
                captions take more memory than all the rest.

        Raises:
            KeyError: If there is no such column.
            RayreelError: If a shard is missing or damaged.
        """

        def chosen(table: pa.Table) -> pa.Table:
            return table if names is None else table.select(names)

        def read(shard: ShardInfo) -> pa.Table:
            return chosen(OpenShard(self._storage, shard).table())

        empty = chosen(plain_schema().empty_table())
        with ThreadPoolExecutor(_READERS) as readers:
            tables = list(readers.map(read, self.info.shards))
        return pa.concat_tables([empty, *tables], promote_options="default")

    def samples_of(self, shard: int) -> range:
        """Numbers of the samples in a shard."""
        return range(self._ends[shard - 1] if shard else 0, self._ends[shard])

    def _shard(self, number: int) -> OpenShard:
        if number not in self._open:
            self._open[number] = OpenShard(self._storage, self.info.shards[number])
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


class LatentStream(IterableDataset[TrainingSample]):
    """Samples of an encoded dataset in an order that depends on seed and epoch alone.

    The order is cut up among the processes of a training job, and among the loading processes of
    each: together they see every sample once, and none sees more than one more than another.

    With a seed, shards come in a random order, a few at a time, and the samples of those that are
    read together are mixed. So each process has few shards open, and samples that are neighbours in
    the list come far apart where there are enough shards.

    Attributes:
        dataset: What is read.
    """

    def __init__(
        self, uri: str | Path, *, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        """Read ``dataset.json``; raises as ``LatentDataset`` does.

        Args:
            uri: Folder or URI of the dataset.
            seed: Of the order; by default that of the list.
            rank: Number of this process of the training job, from 0.
            world: How many there are.

        Raises:
            ValueError: If there is no such rank.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} should be from 0 to {world - 1}, as world={world}")
        self.dataset = LatentDataset(uri)
        self._seed = seed
        self._rank = rank
        self._world = world
        # Loading processes that outlive an epoch are told the next one through shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose another order; holds for whoever starts to read from now on, and with a seed."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[TrainingSample]:
        """Read this process's share; raises as ``LatentDataset`` does."""
        loading = get_worker_info()
        loaders, loader = (loading.num_workers, loading.id) if loading else (1, 0)
        mine = islice(self._order(), self._rank * loaders + loader, None, self._world * loaders)
        return map(self.dataset.__getitem__, mine)

    def _order(self) -> Iterator[int]:
        """Numbers of all samples."""
        if self._seed is None:
            yield from range(len(self.dataset))
            return
        generator = seeded_generator(self._seed, f"epoch{self._epoch.item()}")
        shards = torch.randperm(len(self.dataset.info.shards), generator=generator).tolist()
        for start in range(0, len(shards), _MIXED):
            together = [self.dataset.samples_of(shard) for shard in shards[start : start + _MIXED]]
            samples = list(chain.from_iterable(together))
            for place in torch.randperm(len(samples), generator=generator).tolist():
                yield samples[place]
