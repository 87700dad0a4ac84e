"""A guided stage at half size, then the latents are doubled and refined by distilled weights."""

from collections.abc import Sequence
from dataclasses import replace

from rayreel.pipelines.base import Pipeline
from rayreel.pipelines.phases import (
    STAGE_2,
    EncodedRequest,
    Phase,
    denoise,
    run_sigmas,
    upsample,
)
from rayreel.types import Latents


class TwoStage(Pipeline):
    """The standard pipeline: structure from guidance at half size, detail from refinement."""

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """Guided denoising at half size."""
        phase = Phase(name="stage1", downscale=2, sigmas=run_sigmas(batch[0].request), guided=True)
        return denoise(self.ledger, batch, phase)

    def refine(self, batch: Sequence[EncodedRequest], latents: Sequence[Latents]) -> list[Latents]:
        """Double and refine the picture.

        The sound is refined along, since the picture attends to it, but the first stage's is kept:
        refinement without guidance makes it worse.
        """
        larger = upsample(self.ledger, latents)
        refined = denoise(self.ledger.distilled, batch, STAGE_2, larger)
        return [replace(new, audio=old.audio) for new, old in zip(refined, latents, strict=True)]
