"""One guided stage at full size."""

from collections.abc import Sequence

from rayreel.pipelines.base import Pipeline
from rayreel.pipelines.phases import EncodedRequest, Phase, denoise, run_sigmas
from rayreel.types import Latents


class OneStage(Pipeline):
    """Guided denoising at the size that was asked for."""

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """All of the denoising."""
        phase = Phase(name="stage1", downscale=1, sigmas=run_sigmas(batch[0].request), guided=True)
        return denoise(self.ledger, batch, phase)
