"""Records of finished samples to shards of a dataset, and their lines in the ledger."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import torch
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ModelChoice
from rayreel.data.columns import TENSORS, SampleInfo, SampleRow
from rayreel.data.dataset import SHARDS
from rayreel.data.ledger import Ledger, LedgerEntry, worker_name
from rayreel.data.shards import put_shard
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.errors import ItemError
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.texts import TextStore
from rayreel.stages.base import Artifact, ItemFailure, StageItem
from rayreel.stages.groups import in_groups
from rayreel.stages.life import alive
from rayreel.types import TextFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSample:
    """A sample, and where its tensors are found.

    Attributes:
        info: What is known of it; the length of its text is filled in.
        latents: Keys of records, by the names of tensors.
        text: What is encoded of its caption, if anything is.
    """

    info: SampleInfo
    latents: Mapping[str, str]
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardItem(StageItem):
    """Samples that share a shard; its identity is theirs.

    Attributes:
        samples: In order.
        measures: Names of those that have a column.
        output: The shard in the run directory.
    """

    samples: tuple[ShardSample, ...]
    measures: tuple[str, ...] = ()
    output: Artifact | None = None

    def finished(self, entry: LedgerEntry) -> Self | None:
        """The item with the shard that its line in the ledger tells of."""
        output = Artifact.of(entry)
        return None if output is None else replace(self, output=output)


@dataclass
class ShardStage:
    """Writes shards one by one; needs no network.

    Attributes:
        model: Weight files, whose identity finds the records.
        store: Folder or URI of the records.
        output: Of the dataset.
        tiled: Whether pictures were encoded in tiles.
    """

    model: ModelChoice
    store: str
    output: str
    tiled: bool
    name: str = field(default="shards", init=False)
    loads: tuple[str, ...] = field(default=(), init=False)
    _latents: LatentStore = field(init=False, repr=False)
    _texts: TextStore = field(init=False, repr=False)
    _storage: Storage = field(init=False, repr=False)
    _ledger: Ledger = field(init=False, repr=False)

    def setup(self) -> None:
        """Open the store; reads headers of weight files alone."""
        records, files = RecordStore(Storage(self.store)), ModelFiles(locate_model(self.model))
        self._latents = LatentStore(records, files, tiled=self.tiled)
        self._texts = TextStore(records, files)
        self._storage = Storage(self.output)
        self._ledger = Ledger(self._storage)

    def __call__(self, batch: Sequence[ShardItem]) -> list[ShardItem | ItemFailure]:
        """Write each shard, then its line in the ledger."""
        return in_groups(self.name, batch, lambda item: item.item_id, self._write)

    def _write(self, items: list[ShardItem]) -> list[ShardItem]:
        (item,) = items
        start = time.perf_counter()
        name = f"{SHARDS}/{item.item_id}.parquet"
        # Another worker that was thought dead writes the same bytes.
        info, statistics = put_shard(self._storage, name, self._rows(item), measures=item.measures)
        output = Artifact(path=name, sha256=info.sha256, num_bytes=info.num_bytes)
        self._ledger.append(
            LedgerEntry(
                item_id=item.item_id,
                status="done",
                attempt=item.attempt,
                seconds={self.name: time.perf_counter() - start},
                output=output.path,
                sha256=output.sha256,
                num_bytes=output.num_bytes,
                num_frames=statistics.frames,
                worker=worker_name(),
                finished_at=datetime.now(UTC),
            )
        )
        return [replace(item, output=output)]

    def _rows(self, item: ShardItem) -> Iterator[SampleRow]:
        for sample in item.samples:
            alive()
            found = self._latents.read(sample.latents.values())
            tensors = {}
            notes = list(sample.info.notes)
            for name, key in sample.latents.items():
                if key not in found:
                    raise _missing(name, sample.info)
                tensors[name] = found[key].tensor.to(TENSORS[name].dtype)
                notes += [note] if (note := found[key].note) else []
            changes: dict[str, Any] = {"notes": tuple(dict.fromkeys(notes))}
            if sample.text is not None:
                features = self._texts.get(sample.text)
                if features is None:
                    raise _missing("text", sample.info)
                tensors |= _text_tensors(features)
                changes["text_length"] = features.length
            yield SampleRow(info=sample.info.model_copy(update=changes), tensors=tensors)


def _text_tensors(features: TextFeatures) -> dict[str, Tensor]:
    if features.audio is features.video:
        return {"text": features.video.to(torch.bfloat16)}
    return {
        "text_video": features.video.to(torch.bfloat16),
        "text_audio": features.audio.to(torch.bfloat16),
    }


def _missing(what: str, info: SampleInfo) -> ItemError:
    return ItemError(
        f"the store has no {what} of {info.name} any more; run the job again with --retry failed, "
        "and it is encoded anew"
    )
