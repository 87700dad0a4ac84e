"""Captions for clips that the list has none for."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Literal

from rayreel.config.encode import CaptionSpec
from rayreel.data.storage import Storage
from rayreel.data.store import Record, RecordStore
from rayreel.errors import SpecError
from rayreel.pipelines.caption_views import Stretch, view_of
from rayreel.pipelines.captioners import (
    KIND,
    Captioner,
    caption_of,
    caption_writer,
    make_captioner,
)
from rayreel.pipelines.devices import Device
from rayreel.stages.base import ItemFailure, StageItem
from rayreel.stages.groups import in_groups
from rayreel.stages.life import alive

REQUESTS = 4
"""Clips that a worker reads and asks about at the same time."""

_WRITER = "captioner"
_NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionItem(StageItem):
    """A stretch of a file on its way to a caption; its identity is the caption's key.

    Attributes:
        source: Path or URI.
        content: Hash of the file's bytes.
        kind: What the file is.
        start: First frame, of the video at a constant rate.
        num_frames: Length of the stretch; 1 for an image, 0 for sound alone.
        fps: Rate of the frames.
        caption: What was written; not cleaned yet.
        caption_by: Who wrote it.
        caption_note: What the captioner was not shown, or could not finish.
    """

    source: str
    content: str
    kind: Literal["video", "image", "audio"]
    start: int = 0
    num_frames: int = 1
    fps: float = 1.0
    caption: str | None = None
    caption_by: str | None = None
    caption_note: str | None = None


Outcome = CaptionItem | ItemFailure


@dataclass
class CaptionStage:
    """Has captions written, each once: what is in the store is not asked for again.

    Attributes:
        spec: With a captioner.
        device: Where a local model computes.
        store: Where captions are kept.
    """

    spec: CaptionSpec
    device: Device
    store: str
    name: str = field(default="caption", init=False)
    _records: RecordStore = field(init=False, repr=False)
    _captioner: Captioner | None = field(default=None, init=False, repr=False)

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""
        return self._captioner.loads if self._captioner else ()

    def setup(self) -> None:
        """Open the store; a local model loads with the first clip that has no caption there."""
        self._records = RecordStore(Storage(self.store))

    def __call__(self, batch: Sequence[CaptionItem]) -> list[Outcome]:
        """Fill in ``caption`` and who wrote it.

        Raises:
            SpecError: If the captioner refuses every clip, such as for a wrong key.
            CheckpointError: If a local model does not load.
        """
        known = self._records.known({item.item_id for item in batch})
        done = self._written([item for item in batch if item.item_id not in known])
        return [
            read_caption(self._records, item) if item.item_id in known else done[item.item_id]
            for item in batch
        ]

    def _written(self, items: list[CaptionItem]) -> dict[str, Outcome]:
        """New captions by their keys, which are in the store from here on."""
        if not items:
            return {}
        self._captioner = self._captioner or make_captioner(self.spec, self.device)
        done: dict[str, Outcome] = {}
        try:
            for outcome in _Asking(self._captioner, self.spec, self.name).together(items):
                done[outcome.item_id] = outcome
                alive()
        finally:
            # What was answered before the captioner refused the rest is kept.
            records = [_record(item) for item in done.values() if isinstance(item, CaptionItem)]
            if records:
                self._records.put(*records)
        return done


def read_caption(records: RecordStore, item: CaptionItem) -> CaptionItem:
    """An item with its caption from a store that knows it.

    Raises:
        RayreelError: If the part that holds it is damaged.
    """
    record = records.get(item.item_id)
    assert record is not None, "it is known"
    made_by = record.made_by or {}
    return replace(
        item,
        caption=record.text,
        caption_by=made_by.get(_WRITER),
        caption_note=made_by.get(_NOTE),
    )


@dataclass
class _Asking:
    """Asks about the clips of a batch.

    Attributes:
        refusals: Why the captioner describes no clip at all.
    """

    captioner: Captioner
    spec: CaptionSpec
    stage: str
    refusals: list[SpecError] = field(default_factory=list)

    def together(self, items: Sequence[CaptionItem]) -> Iterator[Outcome]:
        """Ask about several clips at the same time; what comes first is first."""
        pool = ThreadPoolExecutor(REQUESTS)
        try:
            futures: list[Future[Outcome]] = [
                # Threads log what they do as part of the same run.
                pool.submit(copy_context().run, self._asked, item)
                for item in items
            ]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _asked(self, item: CaptionItem) -> Outcome:
        """The item with its caption, or why there is none."""
        if not self.refusals:
            (outcome,) = in_groups(self.stage, [item], lambda _: None, self._work)
        if self.refusals:
            raise self.refusals[0]
        return outcome

    def _work(self, items: list[CaptionItem]) -> list[CaptionItem]:
        try:
            return [self._captioned(item) for item in items]
        except SpecError as error:
            # Not the fault of this item, and the others need not be asked about.
            self.refusals.append(error)
            raise

    def _captioned(self, item: CaptionItem) -> CaptionItem:
        stretch = Stretch(
            source=item.source,
            kind=item.kind,
            start=item.start,
            num_frames=item.num_frames,
            fps=item.fps,
        )
        view = view_of(stretch, self.spec)
        answer = self.captioner(view)
        cut = f"the caption ends where captions.max_tokens={self.spec.max_tokens} cut the answer"
        note = "; ".join(filter(None, [view.note, cut if answer.cut else None]))
        return replace(
            item,
            caption=caption_of(answer),
            caption_by=caption_writer(self.spec),
            caption_note=note or None,
        )


def _record(item: CaptionItem) -> Record:
    made_by = {_WRITER: item.caption_by, _NOTE: item.caption_note}
    return Record(
        key=item.item_id,
        kind=KIND,
        text=item.caption,
        made_by={name: value for name, value in made_by.items() if value},
    )
