"""Interpolation between images: all of them guide the clip, and none replaces what is made."""

from dataclasses import replace

from rayreel.config.request import RenderRequest
from rayreel.pipelines import conditions
from rayreel.pipelines.base import PipelineTraits
from rayreel.pipelines.phases import Phase
from rayreel.pipelines.two_stage import TwoStage


class KeyframeInterpolation(TwoStage):
    """Images are appended as guiding tokens in both stages."""

    traits = PipelineTraits(
        stages=2,
        guided=True,
        needs=("upsampler", "distilled_lora"),
        asks=("images",),
        takes=(),
    )
    refines_sound = True

    def first_phase(self, request: RenderRequest) -> Phase:
        """Guided by keyframes."""
        return replace(super().first_phase(request), video=conditions.keyframes)

    def second_phase(self, request: RenderRequest) -> Phase:
        """The same."""
        return replace(super().second_phase(request), video=conditions.keyframes)
