"""Distilled weights in both stages: few steps, no guidance."""

from rayreel.checkpoints.files import ModelFiles
from rayreel.pipelines.base import PipelineTraits
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
