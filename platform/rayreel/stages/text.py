"""Prompts to text embeddings."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.config.jobs import MemorySpec, ModelSpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.chain import first_image
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.devices import Device
from rayreel.pipelines.enhance import enhance
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.pipelines.phases import encode
from rayreel.stages.base import RenderItem, Result, in_groups
from rayreel.types import TextContext


@dataclass
class TextStage:
    """Encodes the prompts of a batch, written out before where a request asks for it.

    Chunks of long clips have prompts of their own: these are encoded as they come.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
        store: Where written prompts are kept.
    """

    model: Literal["tiny"] | ModelSpec
    device: Device
    memory: MemorySpec
    store: str
    name: str = field(default="text", init=False)
    _ledger: ModelLedger = field(init=False, repr=False)
    _prompts: RecordStore = field(init=False, repr=False)
    _negatives: dict[str, TextContext] = field(init=False, default_factory=dict, repr=False)

    def setup(self) -> None:
        """Load the text encoder."""
        self._ledger = ledger_for(self.model, self.device, self.memory)
        self._ledger.preload("text_encoder")
        self._prompts = RecordStore(Storage(self.store))

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Fill in ``context`` and ``negative``."""
        return in_groups(self.name, batch, _is_encoded_here, self._encode)

    def _encode(self, items: list[RenderItem]) -> list[RenderItem]:
        if not _is_encoded_here(items[0]):
            return items
        items = self._written(items)
        asked = [
            item.request.model_copy(update={"prompt": item.prompts[0]})
            if item.prompts
            else item.request
            for item in items
        ]
        encoded = encode(self._ledger, asked, self._negatives)
        # Most rows share one negative prompt: what this batch used serves the next one.
        self._negatives = {
            one.request.negative_prompt: one.negative
            for one in encoded
            if one.request.negative_prompt is not None and one.negative is not None
        }
        return [
            replace(item, context=one.context, negative=one.negative)
            for item, one in zip(items, encoded, strict=True)
        ]

    def _written(self, items: list[RenderItem]) -> list[RenderItem]:
        """Prompts written out, of the items that ask for it."""
        if not any(item.request.enhance for item in items):
            return items
        # One load for all of them, if the writer is not kept anyway.
        writes = TextGeneratorFiles(self._ledger.files.text_encoder).cannot_write is None
        with self._ledger.enhancer() if writes else nullcontext():
            return [self._write(item) if item.request.enhance else item for item in items]

    def _write(self, item: RenderItem) -> RenderItem:
        request = item.request
        written = enhance(
            self._ledger,
            request.prompt,
            seed=request.seed or 0,
            image=first_image(request),
            store=self._prompts,
        )
        notes = (written.note,) if written.note else ()
        prompts = (written.prompt,) if written.prompt != request.prompt else ()
        return replace(item, prompts=prompts, notes=(*item.notes, *notes))


def _is_encoded_here(item: RenderItem) -> bool:
    return pipeline_of(item.request).traits.stages > 0 and not is_chained(item.request)
