"""What a pipeline is: a list of phases that a request goes through."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rayreel.config.request import RenderRequest
from rayreel.pipelines import phases
from rayreel.pipelines.decoding import decode
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import EncodedRequest
from rayreel.pipelines.resolve import resolve
from rayreel.types import Clip, Latents


class Pipeline(ABC):
    """A way of sampling; takes its ledger of networks once and requests per call.

    ``generate`` and ``refine`` are apart so that a job can give each its own workers.
    """

    def __init__(self, ledger: ModelLedger) -> None:
        """Keep the ledger; networks load when they are first used."""
        self.ledger = ledger

    @abstractmethod
    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """First stage: from noise to latents, for requests of one ``batch_key``."""

    def refine(
        self,
        batch: Sequence[EncodedRequest],  # noqa: ARG002 - for pipelines of two stages
        latents: Sequence[Latents],
    ) -> list[Latents]:
        """Second stage: from latents to larger, finer ones; a pipeline of one stage has none."""
        return list(latents)

    def __call__(self, request: RenderRequest) -> Clip:
        """Render one request from prompt to clip.

        Raises:
            ValueError: If the request has no seed.
            MediaError: If an image of it cannot be read.
        """
        if request.seed is None:
            raise ValueError("seed=None: a request on its own needs a seed")
        request = resolve(request, self.ledger.files)
        batch = phases.encode(self.ledger, [request])
        latents = self.refine(batch, self.generate(batch))
        return decode(self.ledger, request, latents[0]).collect()
