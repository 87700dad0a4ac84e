"""One guided stage at full size."""

from rayreel.pipelines.base import Pipeline, PipelineTraits


class OneStage(Pipeline):
    """Guided denoising at the size that was asked for."""

    traits = PipelineTraits(stages=1, guided=True)
