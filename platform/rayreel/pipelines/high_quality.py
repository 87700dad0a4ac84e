"""Two stages with a second-order sampler, and some of the distilled adapter in both."""

from dataclasses import replace

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.diffusion.schedulers import LTX2Scheduler
from rayreel.pipelines.base import Defaults
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase, guided_sigmas
from rayreel.pipelines.states import video_target
from rayreel.pipelines.two_stage import TwoStage

FIRST_STRENGTH = 0.25
SECOND_STRENGTH = 0.5


class HighQuality(TwoStage):
    """Fewer, better steps: noise levels follow the real number of tokens.

    The published pipeline draws the sampler's noise from one fixed seed; here the request's seed
    decides it, as everywhere.
    """

    refiner = "res_2s"

    @classmethod
    def defaults(cls, files: ModelFiles) -> Defaults:
        """Fifteen steps, and no perturbed predictions."""
        usual = super().defaults(files)
        video = usual.video.model_copy(
            update={"stg_scale": 0.0, "stg_blocks": (), "rescale_scale": 0.45}
        )
        audio = usual.audio.model_copy(
            update={"stg_scale": 0.0, "stg_blocks": (), "rescale_scale": 1.0}
        )
        return Defaults(steps=15, video=video, audio=audio)

    @classmethod
    def sampler(cls, files: ModelFiles) -> str:  # noqa: ARG003 - the same for all
        """Second order."""
        return "res_2s"

    def first_phase(self, request: RenderRequest) -> Phase:
        """Levels for as many tokens as there are, of the scheduler that counts them."""
        phase = super().first_phase(request)
        if request.scheduler == "ltx2":
            tokens = video_target(self.ledger, request, phase.downscale).tokens
            phase = replace(phase, sigmas=guided_sigmas(request, LTX2Scheduler(tokens=tokens)))
        return phase

    def first_weights(self, request: RenderRequest) -> ModelLedger:
        """A quarter of the distilled adapter."""
        return self.distilled(request, strength=FIRST_STRENGTH)

    def second_weights(self, request: RenderRequest) -> ModelLedger:
        """Half of it."""
        return self.distilled(request, strength=SECOND_STRENGTH)
