"""Media to latents and masks in the store, where those who write shards find them."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from rayreel.config.jobs import MemorySpec, ModelChoice
from rayreel.data.samples import Medium, Picture, Sound
from rayreel.data.sources import local_copy
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines.devices import Device
from rayreel.pipelines.encoding import encode_pictures, encode_sounds, read_medium
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.stages.base import ItemFailure, StageItem
from rayreel.stages.groups import Relief, in_groups, is_out_of_memory
from rayreel.stages.life import alive

log = logging.getLogger(__name__)

_GROUPS_AHEAD = 2
"""Groups whose pixels are in memory: one that is encoded, and one that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentItem(StageItem):
    """Media of a sample on their way into the store.

    Items of a group are alike: each has as many media of each size and length.

    Attributes:
        media: What is encoded, and its keys.
        group: Items of one group share calls of the encoders.
        group_size: Items of the whole group. Where fewer come, or some cannot be read, calls are
            filled up to the shape that they have for all: numbers depend on it in their last bits.
        missing: Keys that are put into the store.
        notes: What was amiss with the files.
    """

    media: tuple[tuple[str, Medium], ...]
    group: str
    group_size: int = 1
    missing: frozenset[str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One medium: read, and later encoded.

    Attributes:
        key: Of its record.
        medium: What it is.
        tensor: Pixels, samples, a mask; or latents.
        note: What was amiss with the file.
    """

    key: str
    medium: Medium
    tensor: Tensor
    note: str | None


_Reads = Mapping[str, "Future[list[_Part]]"]
"""What becomes of the items of a group as they are read, by their ids."""


@dataclass
class LatentStage:
    """Reads media in threads, and encodes one group while it reads the next.

    Attributes:
        model: Weight files.
        device: Where to compute; sound in float32 whatever its dtype.
        memory: How long networks are held.
        store: Where latents and masks are kept.
        tiled: Whether large pictures are encoded in tiles.
    """

    model: ModelChoice
    device: Device
    memory: MemorySpec
    store: str
    tiled: bool = False
    name: str = field(default="latents", init=False)
    _ledger: ModelLedger = field(init=False, repr=False)
    _sound_ledger: ModelLedger = field(init=False, repr=False)
    _latents: LatentStore = field(init=False, repr=False)
    _relief: Relief = field(init=False, repr=False)

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""
        return tuple(name for ledger in self._ledgers for name in ledger.loads)

    def setup(self) -> None:
        """Open the weight files; an encoder loads with the first group that it is needed for."""
        self._ledger = ledger_for(self.model, self.device, self.memory)
        in_float32 = replace(self.device, dtype="float32")
        self._sound_ledger = ledger_for(self.model, in_float32, self.memory)
        self._latents = latent_store(self._ledger, self.store, tiled=self.tiled)
        self._relief = Relief(self._relieve)

    def __call__(self, batch: Sequence[LatentItem]) -> list[LatentItem | ItemFailure]:
        """Put what is missing into the store, what a group has of it as one part.

        Raises:
            OSError: If the store cannot be written.
        """
        groups: dict[str, list[LatentItem]] = {}
        for item in batch:
            groups.setdefault(item.group, []).append(item)
        results: dict[str, LatentItem | ItemFailure] = {}
        readers = ThreadPoolExecutor(max(2, torch.get_num_threads()))
        try:
            for items, reads in self._ahead(readers, groups.values()):
                results |= {result.item_id: result for result in self._group(items, reads)}
                del reads
        finally:
            readers.shutdown(cancel_futures=True)
        return [results[item.item_id] for item in batch]

    def _ahead(
        self, readers: Executor, groups: Iterable[list[LatentItem]]
    ) -> Iterator[tuple[list[LatentItem], _Reads]]:
        """Groups in order, whose reading has begun, as has that of the next one."""
        begun: deque[tuple[list[LatentItem], _Reads]] = deque()
        for items in groups:
            reads = {item.item_id: readers.submit(self._read, item) for item in items}
            begun.append((items, reads))
            del reads
            if len(begun) == _GROUPS_AHEAD:
                yield begun.popleft()
        while begun:
            yield begun.popleft()

    def _read(self, item: LatentItem) -> list[_Part]:
        """All media of an item; pixels as the encoder computes with them, which takes less."""
        with ExitStack() as copies:
            sources = dict.fromkeys(medium.source for _, medium in item.media)
            paths = {source: copies.enter_context(local_copy(source)) for source in sources}
            parts = []
            for key, medium in item.media:
                tensor, note = read_medium(paths[medium.source], medium, self._ledger.files)
                dtype = self._ledger.dtype if isinstance(medium, Picture) else torch.float32
                parts.append(_Part(key=key, medium=medium, tensor=tensor.to(dtype), note=note))
        return parts

    def _group(self, items: list[LatentItem], reads: _Reads) -> list[LatentItem | ItemFailure]:
        """Results of a group; what cannot be read fails, and the rest goes on without it."""
        for _ in as_completed(reads.values()):
            alive()
        unread = [item for item in items if reads[item.item_id].exception()]
        ready = [item for item in items if not reads[item.item_id].exception()]
        encoded: dict[str, _Part] = {}
        encode = partial(self._encode, reads, encoded)
        results = [
            *in_groups(self.name, unread, lambda item: item.item_id, partial(_raise, reads)),
            *in_groups(self.name, ready, _likeness, encode, self._relief),
        ]
        done = [result for result in results if isinstance(result, LatentItem)]
        wanted = {key for item in done for key in item.missing}
        self._put([part for key, part in encoded.items() if key in wanted])
        alive()
        return results

    def _encode(
        self, reads: _Reads, encoded: dict[str, _Part], items: list[LatentItem]
    ) -> list[LatentItem]:
        """Encode items in calls of the shape that they have for the whole group, if that fits."""
        whole, kind = items[0].group_size, _likeness(items[0])
        parts = [part for item in items for part in reads[item.item_id].result()]
        while True:
            size = max(len(items), min(whole, self._relief.most.get(kind, whole)))
            try:
                encoded |= {part.key: part for part in self._encoded(parts, size / len(items))}
                break
            except (RuntimeError, MemoryError) as error:
                if size == len(items) or not is_out_of_memory(error):
                    raise
            log.warning("%s: out of memory for a batch of %d, halving it", self.name, size)
            self._relief.smaller(kind, max(len(items), (size + 1) // 2))
        return [replace(item, notes=(*item.notes, *_notes(item, encoded))) for item in items]

    def _encoded(self, parts: Sequence[_Part], fill: float) -> list[_Part]:
        """Latents of pictures and sounds; masks are what they are to be."""
        pictures = [part for part in parts if isinstance(part.medium, Picture)]
        sounds = [part for part in parts if isinstance(part.medium, Sound)]
        others = [part for part in parts if not isinstance(part.medium, Picture | Sound)]
        if pictures:
            pixels = [part.tensor for part in pictures]
            latents = encode_pictures(self._ledger, pixels, tiled=self.tiled, fill=fill)
            pictures = [replace(p, tensor=t) for p, t in zip(pictures, latents, strict=True)]
            alive()
        if sounds:
            waveforms = [part.tensor for part in sounds]
            latents = encode_sounds(self._sound_ledger, waveforms, fill=fill)
            sounds = [replace(p, tensor=t) for p, t in zip(sounds, latents, strict=True)]
            alive()
        return [*pictures, *sounds, *others]

    def _put(self, parts: Sequence[_Part]) -> None:
        if parts:
            notes = {part.medium: part.note for part in parts if part.note}
            self._latents.put({part.medium: part.tensor for part in parts}, notes)

    @property
    def _ledgers(self) -> tuple[ModelLedger, ...]:
        """One where all is computed in float32."""
        return tuple({id(one): one for one in (self._ledger, self._sound_ledger)}.values())

    def _relieve(self) -> str | None:
        return next((step for one in self._ledgers if (step := one.relieve("offload"))), None)


def latent_store(ledger: ModelLedger, folder: str, *, tiled: bool) -> LatentStore:
    """The latents of a ledger's model in the store at a folder or URI."""
    return LatentStore(RecordStore(Storage(folder)), ledger.files, tiled=tiled)


def _likeness(item: LatentItem) -> tuple[str, ...]:
    """What decides how much memory an item takes, in groups to come too."""
    return tuple(
        str(medium.bucket) if isinstance(medium, Picture) else f"{medium.duration_s:.6f} s"
        for _, medium in item.media
        if isinstance(medium, Picture | Sound)
    )


def _notes(item: LatentItem, encoded: Mapping[str, _Part]) -> list[str]:
    return [note for key, _ in item.media if (note := encoded[key].note)]


def _raise(reads: _Reads, items: list[LatentItem]) -> list[LatentItem]:
    """Work on items that could not be read: raises what their reading did."""
    for item in items:
        reads[item.item_id].result()
    return items
