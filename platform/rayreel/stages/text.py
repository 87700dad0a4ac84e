"""Texts to features in the store, where the stages that denoise find them."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.config.jobs import MemorySpec, ModelChoice
from rayreel.config.request import RenderRequest
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.chain import first_image
from rayreel.pipelines.chunks import is_chained, plan_chunks
from rayreel.pipelines.devices import Device
from rayreel.pipelines.enhance import enhance
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.pipelines.phases import features, texts_of
from rayreel.pipelines.texts import TextStore
from rayreel.stages.base import ItemFailure, TextItem
from rayreel.stages.groups import Relief, in_groups

log = logging.getLogger(__name__)


@dataclass
class TextStage:
    """Encodes the texts of a batch that nobody has encoded yet.

    A prompt is written out before where a request asks for it.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
        store: Where written prompts and encoded texts are kept.
    """

    model: ModelChoice
    device: Device
    memory: MemorySpec
    store: str
    name: str = field(default="text", init=False)
    _ledger: ModelLedger = field(init=False, repr=False)
    _texts: TextStore = field(init=False, repr=False)
    _relief: Relief = field(init=False, repr=False)

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""
        return self._ledger.loads

    @property
    def time_factor(self) -> int:
        """Pixel frames per latent frame of the model."""
        return self._ledger.files.factors.time

    def setup(self) -> None:
        """Open the weight files; the encoder loads with the first text that is not known."""
        self._ledger = ledger_for(self.model, self.device, self.memory)
        self._relief = Relief(partial(self._ledger.relieve, "offload"))
        self._texts = text_store(self._ledger, self.store)

    def __call__(self, batch: Sequence[TextItem]) -> list[TextItem | ItemFailure]:
        """Fill in ``written``, and put features of each text into the store.

        Texts of like length share calls, so a batch of them is less work.
        """
        return in_groups(self.name, batch, lambda _: None, self._encode, self._relief)

    def _encode(self, items: list[TextItem]) -> list[TextItem]:
        items = self._written(items)
        texts = dict.fromkeys(item.written or item.text for item in items)
        known = self._texts.known(texts)
        if new := [text for text in texts if text not in known]:
            features(self._ledger, new, self._texts)
        return items

    def _written(self, items: list[TextItem]) -> list[TextItem]:
        """Prompts written out, of the items that ask for it."""
        if not any(item.request for item in items):
            return items
        # One load for all of them, if the writer is not kept anyway.
        writes = TextGeneratorFiles(self._ledger.files.text_encoder).cannot_write is None
        with self._ledger.enhancer() if writes else nullcontext():
            return [self._write(item, item.request) if item.request else item for item in items]

    def _write(self, item: TextItem, request: RenderRequest) -> TextItem:
        written = enhance(
            self._ledger,
            request.prompt,
            seed=request.seed or 0,
            image=first_image(request),
            store=self._texts.records,
        )
        notes = (written.note,) if written.note else ()
        prompt = written.prompt if written.prompt != request.prompt else None
        return replace(item, written=prompt, notes=(*item.notes, *notes))


def text_store(ledger: ModelLedger, folder: str) -> TextStore:
    """The texts of a ledger's model in the store at a folder or URI."""
    return TextStore(RecordStore(Storage(folder)), ledger.files)


def needed_texts(request: RenderRequest, time_factor: int) -> list[str]:
    """What must be encoded before a resolved request is denoised, as far as that is known.

    Not its prompt where that is written out before, nor prompts that chunks get on the way.

    Args:
        request: Resolved.
        time_factor: Pixel frames per latent frame.
    """
    if not pipeline_of(request).traits.stages:
        return []
    chained = is_chained(request)
    parts = [chunk.request for chunk in plan_chunks(request, time_factor)] if chained else [request]
    texts = texts_of(parts)
    return [text for text in texts if text != request.prompt] if request.enhance else texts


def is_written_before(request: RenderRequest) -> bool:
    """Whether a resolved request's prompt is written out before it is denoised, in one go."""
    return request.enhance and not is_chained(request) and bool(pipeline_of(request).traits.stages)
