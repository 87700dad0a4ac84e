"""Distilled weights in both stages: few steps, no guidance."""

import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS
from rayreel.pipelines.base import PipelineTraits
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase
from rayreel.pipelines.two_stage import TwoStage

# From this generation on, checkpoints are distilled for steps that renew their noise.
_ANCESTRAL_SINCE = (2, 5)


class Distilled(TwoStage):
    """Eight unguided steps at half size, then three at full size."""

    traits = PipelineTraits(stages=2, guided=False, needs=("upsampler",), uses=("distilled_lora",))
    refines_sound = True

    @classmethod
    def sampler(cls, files: ModelFiles) -> str:
        """By generation of the checkpoint."""
        ancestral = files.transformer_file.model_version >= _ANCESTRAL_SINCE
        return "ancestral_euler" if ancestral else "euler"

    def first_phase(self, request: RenderRequest) -> Phase:
        """Unguided, at half size."""
        return Phase(
            name="stage1",
            downscale=2,
            sigmas=torch.tensor(request.sigmas or DISTILLED_SIGMAS),
            guided=False,
            sampler=request.sampler or "euler",
        )

    def first_weights(self, request: RenderRequest) -> ModelLedger:
        """The distilled model in both stages."""
        return self.second_weights(request)
