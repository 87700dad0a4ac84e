"""Latents to a clip in the run directory, and its line in the ledger."""

import hashlib
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from torch import Tensor

from rayreel.config.jobs import MemorySpec, ModelSpec
from rayreel.data.ledger import Ledger, LedgerEntry, worker_name
from rayreel.data.storage import Storage
from rayreel.media.mux import write_clip
from rayreel.pipelines.decoding import decode
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.stages.base import ClipFile, RenderItem, Result, in_groups


@dataclass
class DecodeStage:
    """Decodes, muxes and writes one clip at a time: pixels never leave the process.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
        output: The run directory.
    """

    model: Literal["tiny"] | ModelSpec
    device: Device
    memory: MemorySpec
    output: str
    name: str = field(default="decode", init=False)
    _models: ModelLedger = field(init=False, repr=False)
    _storage: Storage = field(init=False, repr=False)
    _ledger: Ledger = field(init=False, repr=False)

    def setup(self) -> None:
        """Load the video decoder."""
        self._models = ledger_for(self.model, self.device, self.memory)
        self._models.preload("video_decoder")
        self._storage = Storage(self.output)
        self._ledger = Ledger(self._storage)

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Write each clip, then its line in the ledger."""
        return in_groups(self.name, batch, lambda item: item.item_id, self._write)

    def _write(self, items: list[RenderItem]) -> list[RenderItem]:
        (item,) = items
        assert item.latents is not None, "items come from a denoising stage"
        start = time.perf_counter()
        digest = hashlib.sha256()
        clip = decode(self._models, item.request, item.latents)
        path = f"videos/{item.item_id}.mp4"
        with self._storage.local_staging(path) as staged:
            hashed = replace(clip, frames=_hashed(clip.frames, digest))
            write_clip(staged, hashed, crf=item.request.crf)
            num_bytes = staged.stat().st_size
        output = ClipFile(path=path, sha256=digest.hexdigest(), num_bytes=num_bytes)
        # The clip is in place: from here on a rerun skips the item, whatever dies.
        self._ledger.append(
            LedgerEntry(
                item_id=item.item_id,
                status="done",
                attempt=item.attempt,
                seconds={**dict(item.seconds), self.name: time.perf_counter() - start},
                output=output.path,
                sha256=output.sha256,
                num_bytes=output.num_bytes,
                seed=item.request.seed,
                worker=worker_name(),
                finished_at=datetime.now(UTC),
            )
        )
        return [replace(item, output=output, latents=None, context=None, negative=None)]


def _hashed(
    chunks: Generator[Tensor, None, None], digest: "hashlib._Hash"
) -> Generator[Tensor, None, None]:
    """Pass chunks on, adding their bytes to a hash on the way."""
    with closing(chunks):
        for chunk in chunks:
            digest.update(chunk.contiguous().numpy().data)
            yield chunk
