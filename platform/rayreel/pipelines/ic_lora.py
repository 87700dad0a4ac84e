"""Video to video: an in-context adapter follows reference videos."""

from dataclasses import replace

from rayreel.config.request import RenderRequest
from rayreel.pipelines import conditions
from rayreel.pipelines.base import PipelineTraits
from rayreel.pipelines.distilled import Distilled
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase


class InContext(Distilled):
    """Reference videos and their adapter steer the first stage; the second has neither."""

    traits = PipelineTraits(
        stages=2,
        guided=False,
        needs=("upsampler",),
        uses=("distilled_lora",),
        asks=("references",),
        takes=("images",),
    )

    def first_phase(self, request: RenderRequest) -> Phase:
        """References appended behind pinned images."""
        return replace(super().first_phase(request), video=conditions.references)

    def first_weights(self, request: RenderRequest) -> ModelLedger:
        """With the in-context adapter."""
        return self.distilled(request)

    def second_weights(self, request: RenderRequest) -> ModelLedger:
        """Without any adapter but the distilled one."""
        return self.distilled(request, own=False)
