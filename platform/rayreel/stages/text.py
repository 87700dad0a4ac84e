"""Prompts to text embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rayreel.config.jobs import MemorySpec, ModelSpec
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger, ledger_for
from rayreel.pipelines.phases import encode
from rayreel.stages.base import RenderItem, Result, in_groups
from rayreel.types import TextContext


@dataclass
class TextStage:
    """Encodes the prompts of a batch, and the negative prompts of guided requests.

    Attributes:
        model: Weight files.
        device: Where to compute.
        memory: How long networks are held.
    """

    model: Literal["tiny"] | ModelSpec
    device: Device
    memory: MemorySpec
    name: str = field(default="text", init=False)
    _ledger: ModelLedger = field(init=False, repr=False)
    _negatives: dict[str, TextContext] = field(init=False, default_factory=dict, repr=False)

    def setup(self) -> None:
        """Load the text encoder."""
        self._ledger = ledger_for(self.model, self.device, self.memory)
        self._ledger.preload("text_encoder")

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Fill in ``context`` and ``negative``."""
        return in_groups(self.name, batch, lambda _: None, self._encode)

    def _encode(self, items: list[RenderItem]) -> list[RenderItem]:
        encoded = encode(self._ledger, [item.request for item in items], self._negatives)
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
