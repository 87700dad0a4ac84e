"""Distilled weights in both stages: few steps, no guidance."""

from collections.abc import Sequence

import torch

from rayreel.diffusion.schedulers import DISTILLED_SIGMAS
from rayreel.pipelines.base import Pipeline
from rayreel.pipelines.phases import STAGE_2, EncodedRequest, Phase, denoise, upsample
from rayreel.types import Latents


class Distilled(Pipeline):
    """Eight unguided steps at half size, then three at full size."""

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """Unguided denoising at half size."""
        phase = Phase(
            name="stage1", downscale=2, sigmas=torch.tensor(DISTILLED_SIGMAS), guided=False
        )
        return denoise(self.ledger.distilled, batch, phase)

    def refine(self, batch: Sequence[EncodedRequest], latents: Sequence[Latents]) -> list[Latents]:
        """Double and refine both streams."""
        larger = upsample(self.ledger, latents)
        return denoise(self.ledger.distilled, batch, STAGE_2, larger)
