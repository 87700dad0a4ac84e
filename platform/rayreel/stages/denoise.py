"""Requests, with their texts from the store, to latents; and latents to finer ones."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rayreel.config.jobs import MemorySpec, ModelChoice
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.diffusion.watch import Watch
from rayreel.pipelines import Pipeline, pipeline_of
from rayreel.pipelines.chain import on_cpu, render_chain
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.devices import Device
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.pipelines.phases import batch_key, encode, texts_of
from rayreel.pipelines.texts import TextStore
from rayreel.stages.base import RenderItem, Result
from rayreel.stages.chunks import StoredChunks
from rayreel.stages.groups import Relief, in_groups
from rayreel.stages.life import Sign, alive
from rayreel.stages.previews import Painter, Pictures, ProjectionFile
from rayreel.stages.text import text_store

log = logging.getLogger(__name__)


@dataclass
class _DenoisingStage:
    """What both stages hold.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
        store: Where written prompts and encoded texts are kept.
        previews: Whether signs of life bring pictures, once the store has what is needed for them.
    """

    model: ModelChoice
    device: Device
    memory: MemorySpec
    store: str
    previews: bool = field(default=False, kw_only=True)
    _painter: Painter | None = field(init=False, repr=False)
    _ledger: ModelLedger = field(init=False, repr=False)
    _texts: TextStore = field(init=False, repr=False)
    _relief: Relief = field(init=False, repr=False)

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""
        return self._ledger.loads

    def setup(self) -> None:
        """Open the weight files; a batch loads the networks that its pipeline asks for first."""
        self._ledger = ledger_for(self.model, self.device, self.memory)
        self._relief = Relief(partial(self._ledger.relieve, "offload"))
        self._texts = text_store(self._ledger, self.store)
        files = self._ledger.files
        self._painter = Painter(ProjectionFile(self.store, files)) if self.previews else None

    def _pipeline(self, items: Sequence[RenderItem]) -> Pipeline:
        signs = _Signs()
        album = None
        if self._painter:
            album = self._painter.album([item.item_id for item in items], signs.pictures)
        watch = Watch(on_step=signs.step, on_estimate=album)
        return pipeline_of(items[0].request)(self._ledger, watch)

    def _encoded(self, items: Sequence[RenderItem]) -> list[EncodedRequest]:
        requests = [
            item.request.model_copy(update={"prompt": item.prompts[0]})
            if item.prompts
            else item.request
            for item in items
        ]
        texts = texts_of(requests)
        if missing := len(texts) - len(self._texts.known(texts)):
            log.warning(
                "%d of %d texts are not in %s: encoded here", missing, len(texts), self.store
            )
        return encode(self._ledger, requests, store=self._texts)


@dataclass
class GenerateStage(_DenoisingStage):
    """First denoising stage of every pipeline; and all of a long clip, chunk after chunk.

    Attributes:
        output: The run directory.
    """

    output: str
    name: str = field(default="stage1", init=False)
    _chunks: Ledger = field(init=False, repr=False)

    def setup(self) -> None:
        """Open the weight files and the run directory."""
        super().setup()
        self._chunks = Ledger(Storage(self.output))

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Fill in ``latents``."""
        return in_groups(self.name, batch, _group, self._generate, self._relief)

    def _generate(self, items: list[RenderItem]) -> list[RenderItem]:
        if is_chained(items[0].request):
            return [self._chain(item) for item in items]
        if _makes_no_latents(items[0]):
            return items
        latents = self._pipeline(items).generate(self._encoded(items))
        return [
            replace(item, latents=on_cpu(one), batch=len(items))
            for item, one in zip(items, latents, strict=True)
        ]

    def _chain(self, item: RenderItem) -> RenderItem:
        store = StoredChunks(Storage(self.output), self._chunks, item.item_id, item.attempt)
        prompts, notes = [], list(item.notes)
        for chunk in render_chain(self._pipeline([item]), item.request, store, self._texts):
            prompts.append(chunk.prompt)
            if chunk.note and chunk.note not in notes:
                notes.append(chunk.note)
        written = tuple(prompts) if set(prompts) != {item.request.prompt} else ()
        return replace(item, prompts=written, notes=tuple(notes))


@dataclass
class RefineStage(_DenoisingStage):
    """Upsampling and second denoising stage; items of a pipeline without one pass through."""

    name: str = field(default="stage2", init=False)

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Replace ``latents`` by finer ones."""
        return in_groups(self.name, batch, _group, self._refine, self._relief)

    def _refine(self, items: list[RenderItem]) -> list[RenderItem]:
        if items[0].latents is None:
            return items
        latents = [item.latents for item in items if item.latents is not None]
        refined = self._pipeline(items).refine(self._encoded(items), latents)
        return [replace(i, latents=on_cpu(one)) for i, one in zip(items, refined, strict=True)]


def _group(item: RenderItem) -> tuple[object, ...]:
    """Chunks of a long clip depend on each other, so there is no one to share a batch with."""
    return (item.item_id,) if is_chained(item.request) else batch_key(item.request)


def _makes_no_latents(item: RenderItem) -> bool:
    return pipeline_of(item.request).traits.stages == 0


@dataclass
class _Signs:
    """Signs of life of one batch."""

    last: Sign = field(default_factory=Sign)

    def step(self, phase: str, step: int, steps: int) -> None:
        log.debug("%s: step %d of %d", phase, step + 1, steps)
        self.last = Sign(phase, step, steps)
        alive(self.last)

    def pictures(self, pictures: Pictures) -> None:
        alive(replace(self.last, pictures=pictures))
