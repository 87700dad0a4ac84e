"""Which samples of a dataset are looked at: as many of each bucket, chosen alike each time."""

from collections import Counter
from itertools import zip_longest

import torch

from rayreel.data.dataset import DatasetInfo
from rayreel.data.reader import LatentDataset
from rayreel.data.shards import OpenShard
from rayreel.data.storage import Storage
from rayreel.types import seeded_generator

_PURPOSE = "inspection"


def pick(dataset: LatentDataset, storage: Storage, count: int) -> list[int]:
    """Numbers of samples, evenly over the buckets and sound alone, in order.

    Shards are read in a random order, and no more of them than it takes.

    Args:
        dataset: To choose from.
        storage: Where it lies.
        count: How many, at most.

    Raises:
        RayreelError: If a shard is missing or damaged.
    """
    wanted = _wanted(dataset.info, count)
    found: dict[str | None, list[int]] = {bucket: [] for bucket in wanted}
    for shard in _mixed(len(dataset.info.shards), "shards"):
        if all(len(found[bucket]) >= most for bucket, most in wanted.items()):
            break
        numbers = dataset.samples_of(shard)
        buckets = OpenShard(storage, dataset.info.shards[shard]).table()["bucket"].to_pylist()
        for place in _mixed(len(numbers), f"shard{shard}"):
            found.setdefault(buckets[place], []).append(numbers[place])
    # In turns, so that a small bucket leaves its share to the others.
    turns = zip_longest(*found.values())
    chosen = [number for turn in turns for number in turn if number is not None]
    return sorted(chosen[:count])


def _wanted(info: DatasetInfo, count: int) -> dict[str | None, int]:
    """Samples of each bucket that are enough to choose from; ``None`` is sound alone."""
    sizes: Counter[str | None] = Counter(info.statistics.buckets)
    sizes[None] = info.num_samples - sizes.total()
    return {bucket: min(size, count) for bucket, size in sizes.items() if size}


def _mixed(count: int, purpose: str) -> list[int]:
    generator = seeded_generator(0, f"{_PURPOSE}/{purpose}")
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
