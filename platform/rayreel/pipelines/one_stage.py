"""One guided stage at full size."""

from collections.abc import Sequence

from rayreel.pipelines.base import Pipeline, PipelineTraits
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.phases import Phase, denoise, first_sigmas
from rayreel.types import Latents


class OneStage(Pipeline):
    """Guided denoising at the size that was asked for."""

    traits = PipelineTraits(stages=1, guided=True)

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """All of the denoising."""
        request = batch[0].request
        phase = Phase(
            name="stage1",
            downscale=1,
            sigmas=first_sigmas(request),
            guided=True,
            sampler=request.sampler or "euler",
        )
        return denoise(self.base(request), batch, phase, watch=self.watch)
