"""Shards become a dataset: ``dataset.json`` is written once all of them are there."""

from collections.abc import Sequence

from rayreel.data.dataset import SHARDS, DatasetInfo, ShardInfo, ShardStatistics, write_info
from rayreel.data.ledger import LedgerTable
from rayreel.data.shards import OpenShard
from rayreel.data.store import RecordStore
from rayreel.errors import RayreelError
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.texts import TextStore
from rayreel.runs.encoding.opened import EncodeRun


def publish(run: EncodeRun, shards: Sequence[tuple[str, int]], table: LedgerTable) -> DatasetInfo:
    """Write ``dataset.json``, and remove shards that are no part of the dataset any more.

    Args:
        run: The job.
        shards: Their ids, in order, and how many samples each has.
        table: The ledger, which has a line of each.

    Raises:
        RayreelError: If a shard is missing or damaged.
    """
    infos, statistics = [], ShardStatistics()
    for shard_id, samples in shards:
        entry = table.entry(shard_id)
        if entry is None or entry.output is None or entry.sha256 is None:
            raise RayreelError(
                f"{run.storage.join('ledger')} has no line of shard {shard_id}, which was written; "
                "the output must be a directory that all nodes see, or a URI"
            )
        info = ShardInfo(
            name=entry.output,
            samples=samples,
            num_bytes=entry.num_bytes or 0,
            sha256=entry.sha256,
        )
        statistics += OpenShard(run.storage, info).statistics()
        infos.append(info)
    records = RecordStore(run.store)
    skip = run.spec.skip
    fingerprints = LatentStore(records, run.files, tiled=run.spec.tiled).made_by
    if "text" not in skip:
        fingerprints |= TextStore(records, run.files).made_by
    dataset = DatasetInfo(
        fingerprints=fingerprints,
        buckets=run.spec.buckets,
        num_samples=statistics.samples,
        statistics=statistics,
        shards=tuple(infos),
    )
    write_info(run.storage, dataset)
    named = {one.name for one in infos}
    run.storage.remove(name for name in run.storage.names(SHARDS) if name not in named)
    return dataset
