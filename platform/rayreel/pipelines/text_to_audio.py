"""Sound without a picture."""

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.pipelines.base import Defaults, Pipeline, PipelineTraits
from rayreel.pipelines.ledger import ModelLedger


class TextToAudio(Pipeline):
    """The audio stream of the transformer alone, guided."""

    traits = PipelineTraits(stages=1, guided=True, takes=(), makes_video=False)

    @classmethod
    def defaults(cls, files: ModelFiles) -> Defaults:
        """There is no picture to be isolated from."""
        usual = super().defaults(files)
        alone = usual.audio.model_copy(update={"modality_scale": 1.0})
        return Defaults(steps=usual.steps, video=usual.video, audio=alone)

    def base(self, request: RenderRequest) -> ModelLedger:
        """Without the weights of the picture."""
        return super().base(request).for_sound
