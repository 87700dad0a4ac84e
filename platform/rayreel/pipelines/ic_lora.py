"""Video to video: an in-context adapter follows reference videos."""

from dataclasses import replace

from rayreel.config.request import RenderRequest
from rayreel.pipelines import conditions
from rayreel.pipelines.distilled import Distilled
from rayreel.pipelines.ledger import ModelLedger


class InContext(Distilled):
    """Reference videos and their adapter steer the first stage; the second has neither."""

    traits = replace(Distilled.traits, asks=("references",), takes=("images",))
    video_conditions = (conditions.references, conditions.pinned)

    def second_weights(self, request: RenderRequest) -> ModelLedger:
        """Without any adapter but the distilled one."""
        return self.distilled(request, own=False)
