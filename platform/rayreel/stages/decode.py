"""Latents to a clip, a sound or an image in the run directory, and its line in the ledger."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from torch import Tensor

from rayreel.config.jobs import MemorySpec, ModelChoice
from rayreel.config.request import RenderRequest
from rayreel.data.ledger import Ledger, LedgerEntry, worker_name
from rayreel.data.storage import Storage
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.chain import FinishedChunk
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.devices import Device
from rayreel.pipelines.joining import join_chunks
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.pipelines.output import Seen, suffix_of, write_output
from rayreel.stages.base import Artifact, RenderItem, Result
from rayreel.stages.chunks import StoredChunks
from rayreel.stages.finished import finished_item
from rayreel.stages.groups import Relief, in_groups
from rayreel.stages.life import alive
from rayreel.stages.previews import ProjectionFile, Teacher
from rayreel.types import ClipStream, Latents


@dataclass
class DecodeStage:
    """Decodes, muxes and writes one clip at a time: pixels never leave the process.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
        output: The run directory.
        keep_latents: Whether latents are kept beside the clips.
        previews: Folder or URI that what previews are painted by is learned into; ``None`` for not.
    """

    model: ModelChoice
    device: Device
    memory: MemorySpec
    output: str
    keep_latents: bool = False
    previews: str | None = None
    name: str = field(default="decode", init=False)
    _models: ModelLedger = field(init=False, repr=False)
    _storage: Storage = field(init=False, repr=False)
    _ledger: Ledger = field(init=False, repr=False)
    _relief: Relief = field(init=False, repr=False)
    _teacher: Teacher | None = field(init=False, repr=False)

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""
        return self._models.loads

    def setup(self) -> None:
        """Load the video decoder."""
        self._models = ledger_for(self.model, self.device, self.memory)
        self._models.preload("video_decoder")
        self._relief = Relief(partial(self._models.relieve, "tiles", "offload"))
        self._storage = Storage(self.output)
        self._ledger = Ledger(self._storage)
        files = self._models.files
        self._teacher = (
            None if self.previews is None else Teacher(ProjectionFile(self.previews, files), files)
        )

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Write each clip, then its line in the ledger."""
        return in_groups(self.name, batch, lambda item: item.item_id, self._write, self._relief)

    def _write(self, items: list[RenderItem]) -> list[RenderItem]:
        (item,) = items
        start = time.perf_counter()
        chunks = StoredChunks(self._storage, self._ledger, item.item_id, item.attempt)
        try:
            output, num_frames = self._written(item, chunks, replaces=False)
        except FileExistsError:
            if done := finished_item(self._ledger, item):
                return [done]
            # A try that was cut off before its line left it: nobody has been promised this file.
            output, num_frames = self._written(item, chunks, replaces=True)
        if self.keep_latents and item.latents is not None:
            chunks.save(0, _whole(item, item.latents))
        entry = LedgerEntry(
            item_id=item.item_id,
            status="done",
            attempt=item.attempt,
            seconds={**dict(item.seconds), self.name: time.perf_counter() - start},
            output=output.path,
            sha256=output.sha256,
            num_bytes=output.num_bytes,
            num_frames=num_frames,
            seed=item.request.seed,
            prompts=item.prompts,
            notes=item.notes,
            batch=item.batch,
            memory=self._relief.said(item.item_id, item),
            worker=worker_name(),
            finished_at=datetime.now(UTC),
        )
        # The clip is in place: from here on a rerun skips the item, whatever dies.
        if not self._ledger.append(entry) and (done := finished_item(self._ledger, item)):
            return [done]
        return [replace(item, output=output, latents=None)]

    def _written(
        self, item: RenderItem, chunks: StoredChunks, *, replaces: bool
    ) -> tuple[Artifact, int]:
        """The file of an item, whole and in place, and how many frames it has."""
        path, digest = output_name(item.item_id, item.request), hashlib.sha256()
        with self._storage.local_staging(path, replace=replaces) as staged:
            clip = self._decoded(item, chunks)
            num_frames, see = clip.num_frames, _hashing(digest)
            video = item.latents.video if item.latents else None
            if self._teacher and video is not None:
                colours = self._teacher.watch(video)
                write_output(staged, item.request, clip, _both(see, colours.see))
                self._teacher.learn(colours)
            else:
                write_output(staged, item.request, clip, see)
            num_bytes = staged.stat().st_size
        return Artifact(path=path, sha256=digest.hexdigest(), num_bytes=num_bytes), num_frames

    def _decoded(self, item: RenderItem, chunks: StoredChunks) -> ClipStream:
        pipeline = pipeline_of(item.request)(self._models)
        if is_chained(item.request):
            return join_chunks(pipeline, item.request, chunks)
        return pipeline.decode(item.request, item.latents or Latents(video=None, audio=None))


def output_name(item_id: str, request: RenderRequest) -> str:
    """Name of the file that a request becomes in a run directory."""
    suffix = suffix_of(request)
    folder = {"mp4": "videos", "png": "images"}.get(suffix, "sounds")
    return f"{folder}/{item_id}.{suffix}"


def _whole(item: RenderItem, latents: Latents) -> FinishedChunk:
    return FinishedChunk(
        latents=latents,
        prompt=item.prompts[0] if item.prompts else item.request.prompt,
        reaches=("start", "end"),
    )


def _both(one: Seen, other: Seen) -> Seen:
    def see(chunk: Tensor) -> None:
        one(chunk)
        other(chunk)

    return see


def _hashing(digest: "hashlib._Hash") -> Callable[[Tensor], None]:
    """Adds what it is given to a hash, and tells that the stage lives."""

    def add(chunk: Tensor) -> None:
        digest.update(chunk.contiguous().numpy().data)
        alive()

    return add
