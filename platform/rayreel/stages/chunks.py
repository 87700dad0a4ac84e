"""Chunks of long clips in the run directory: a chain that was killed goes on after the last one."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from safetensors.torch import load, save

from rayreel.data.ledger import Ledger, LedgerEntry, worker_name
from rayreel.data.storage import Storage
from rayreel.pipelines.chain import FinishedChunk
from rayreel.pipelines.chunks import ClipEnd
from rayreel.types import Latents

FOLDER = "latents"


@dataclass(frozen=True)
class StoredChunks:
    """Chunks of one clip, a file and then a line in the ledger for each.

    Attributes:
        storage: The run directory.
        ledger: Of the run.
        item_id: The clip.
        attempt: Which try of the clip this is, from 1.
    """

    storage: Storage
    ledger: Ledger
    item_id: str
    attempt: int = 1

    def load(self, index: int) -> FinishedChunk | None:
        """A chunk, or ``None`` if it is not finished: files appear whole.

        One that a try left before it could write its line is taken over, with its line.
        """
        name = chunk_name(self.item_id, index)
        if not self.storage.exists(name):
            return None
        data = self.storage.read_bytes(name)
        if self.ledger.find(self._id(index)) is None:
            self._append(index, data)
        return _unpacked(data)

    def save(self, index: int, chunk: FinishedChunk) -> None:
        """Write a chunk, then its line in the ledger; one with a line stays as it is."""
        name, data = chunk_name(self.item_id, index), _packed(chunk)
        if not self.storage.create_bytes(name, data):
            if self.ledger.find(self._id(index)):
                return
            self.storage.write_bytes(name, data)
        self._append(index, data)

    def _id(self, index: int) -> str:
        return f"{self.item_id}-{index:04d}"

    def _append(self, index: int, data: bytes) -> None:
        self.ledger.append(
            LedgerEntry(
                item_id=self._id(index),
                status="done",
                attempt=self.attempt,
                output=chunk_name(self.item_id, index),
                sha256=hashlib.sha256(data).hexdigest(),
                num_bytes=len(data),
                worker=worker_name(),
                finished_at=datetime.now(UTC),
            )
        )


def chunk_name(item_id: str, index: int) -> str:
    """Name of a chunk's file in a run directory; a clip of one piece is its chunk 0."""
    return f"{FOLDER}/{item_id}-{index:04d}.safetensors"


def finished_chunks(storage: Storage) -> Counter[str]:
    """How many chunks each clip of a run has so far, by item."""
    stems = (PurePosixPath(name).stem for name in storage.names(FOLDER))
    return Counter(stem.rpartition("-")[0] for stem in stems)


def _packed(chunk: FinishedChunk) -> bytes:
    latents = {"video": chunk.latents.video, "audio": chunk.latents.audio}
    tensors = {name: t.contiguous() for name, t in latents.items() if t is not None}
    about = {"prompt": chunk.prompt, "note": chunk.note, "reaches": chunk.reaches}
    return save(tensors, {"chunk": json.dumps(about)})


def _unpacked(data: bytes) -> FinishedChunk:
    tensors, about = load(data), _about(data)
    return FinishedChunk(
        latents=Latents(video=tensors.get("video"), audio=tensors.get("audio")),
        prompt=about["prompt"],
        note=about["note"],
        reaches=tuple(about["reaches"]),
    )


def _about(data: bytes) -> dict[str, Any]:
    """What a file says of its chunk; safetensors reads metadata of files on disk only."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about: dict[str, Any] = json.loads(header["__metadata__"]["chunk"])
    return about | {"frames": header["video"]["shape"][1] if "video" in header else 0}


def latents_at(storage: Storage, item_id: str, end: ClipEnd, *, least: int = 1) -> str | None:
    """Where the latents lie that a finished clip starts or ends with, if its run kept them.

    Args:
        storage: The run directory.
        item_id: The clip.
        end: Which end of it.
        least: Latent frames that are needed; a chunk with fewer will not do.
    """
    names: list[str] = []
    while storage.exists(name := chunk_name(item_id, len(names))):
        names.append(name)
    # Chunks in the middle reach neither end.
    for name in names[:1] + names[-1:]:
        about = _about(storage.read_bytes(name))
        if end in about["reaches"] and about["frames"] >= least:
            return storage.join(name)
    return None
