"""Text embeddings to latents, and latents to finer ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rayreel.config.jobs import MemorySpec, ModelSpec
from rayreel.pipelines import PIPELINE_CLASSES, Pipeline
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.pipelines.phases import EncodedRequest, batch_key
from rayreel.stages.base import RenderItem, Result, in_groups
from rayreel.types import Latents


@dataclass
class _DenoisingStage:
    """What both stages hold.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
    """

    model: Literal["tiny"] | ModelSpec
    device: Device
    memory: MemorySpec
    _ledger: ModelLedger = field(init=False, repr=False)

    def setup(self) -> None:
        """Open the weight files; a batch loads the networks that its pipeline asks for first."""
        self._ledger = ledger_for(self.model, self.device, self.memory)

    def _pipeline(self, items: list[RenderItem]) -> Pipeline:
        return PIPELINE_CLASSES[items[0].request.pipeline](self._ledger)


@dataclass
class GenerateStage(_DenoisingStage):
    """First denoising stage of every pipeline."""

    name: str = field(default="stage1", init=False)

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Fill in ``latents``."""
        return in_groups(self.name, batch, lambda item: batch_key(item.request), self._generate)

    def _generate(self, items: list[RenderItem]) -> list[RenderItem]:
        latents = self._pipeline(items).generate(_encoded(items))
        return [replace(i, latents=_on_cpu(one)) for i, one in zip(items, latents, strict=True)]


@dataclass
class RefineStage(_DenoisingStage):
    """Upsampling and second denoising stage; items of a pipeline without one pass through."""

    name: str = field(default="stage2", init=False)

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Replace ``latents`` by finer ones, and drop the text, which nothing reads any more."""
        return in_groups(self.name, batch, lambda item: batch_key(item.request), self._refine)

    def _refine(self, items: list[RenderItem]) -> list[RenderItem]:
        latents = [item.latents for item in items if item.latents is not None]
        refined = self._pipeline(items).refine(_encoded(items), latents)
        return [
            replace(item, latents=_on_cpu(one), context=None, negative=None)
            for item, one in zip(items, refined, strict=True)
        ]


def _encoded(items: Sequence[RenderItem]) -> list[EncodedRequest]:
    return [
        EncodedRequest(request=item.request, context=item.context, negative=item.negative)
        for item in items
        if item.context is not None
    ]


def _on_cpu(latents: Latents) -> Latents:
    return Latents(
        video=None if latents.video is None else latents.video.cpu(),
        audio=None if latents.audio is None else latents.audio.cpu(),
    )
