"""Texts as the transformer reads them, kept while they are trained on again and again."""

from collections import OrderedDict

import torch

from rayreel.models.text.connector import TextConnectors
from rayreel.training.example import Batch
from rayreel.types import TextContext

MOST_BYTES = 2**30
"""What is kept at most: some eighty texts of a published model, or thousands of a small one's."""


class Contexts:
    """What frozen connectors make of the texts of samples."""

    def __init__(
        self, connectors: TextConnectors, dtype: torch.dtype, most_bytes: int = MOST_BYTES
    ) -> None:
        """Keep nothing yet.

        Args:
            connectors: On their device.
            dtype: That they compute in.
            most_bytes: Once they are reached, the oldest contexts make room.
        """
        self._connectors = connectors
        self._dtype = dtype
        self._most_bytes = most_bytes
        self._kept: OrderedDict[int, TextContext] = OrderedDict()
        self._bytes = 0

    @torch.no_grad()
    def of(self, batch: Batch) -> list[TextContext]:
        """Contexts of the samples of a batch, in order, unbatched."""
        texts = dict(zip(batch.samples, batch.texts, strict=True))
        new = [sample for sample in texts if sample not in self._kept]
        found = {sample: self._kept[sample] for sample in texts if sample in self._kept}
        for sample in new:
            # One by one: a text is the same in every batch, to the bit.
            (found[sample],) = self._connectors(
                [texts[sample].to(texts[sample].video.device, self._dtype)]
            )
            self._keep(sample, found[sample])
        return [found[sample] for sample in batch.samples]

    def _keep(self, sample: int, context: TextContext) -> None:
        self._kept[sample] = context
        self._bytes += _size(context)
        while self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(context: TextContext) -> int:
    return context.video.nbytes + context.audio.nbytes
