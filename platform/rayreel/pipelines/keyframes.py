"""Interpolation between images: all of them guide the clip, and none replaces what is made."""

from dataclasses import replace

from rayreel.pipelines import conditions
from rayreel.pipelines.two_stage import TwoStage


class KeyframeInterpolation(TwoStage):
    """Images are appended as guiding tokens in both stages."""

    traits = replace(TwoStage.traits, asks=("images",), takes=())
    refines_sound = True
    video_conditions = (conditions.keyframes,) * 2
