"""A guided stage at half size, then the latents are doubled and refined by distilled weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rayreel.config.request import RenderRequest
from rayreel.pipelines.base import Pipeline, PipelineTraits
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase, denoise, first_sigmas, second_stage, upsample
from rayreel.types import Latents


class TwoStage(Pipeline):
    """The standard pipeline: structure from guidance at half size, detail from refinement.

    Its variants say which phases they run instead, and with which weights.
    """

    traits = PipelineTraits(stages=2, guided=True, needs=("upsampler", "distilled_lora"))
    refines_sound: ClassVar[bool] = False

    def first_phase(self, request: RenderRequest) -> Phase:
        """Guided, at half size."""
        return Phase(
            name="stage1",
            downscale=2,
            sigmas=first_sigmas(request),
            guided=True,
            sampler=request.sampler or "euler",
        )

    def second_phase(self, request: RenderRequest) -> Phase:
        """Unguided, at full size."""
        return second_stage(request)

    def first_weights(self, request: RenderRequest) -> ModelLedger:
        """The model as it is."""
        return self.base(request)

    def second_weights(self, request: RenderRequest) -> ModelLedger:
        """The distilled model."""
        return self.distilled(request)

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """Denoising at half size."""
        request = batch[0].request
        phase = self.first_phase(request)
        return denoise(
            self.first_weights(request), batch, phase, self.start(batch), watch=self.watch
        )

    def start(self, batch: Sequence[EncodedRequest]) -> list[Latents] | None:  # noqa: ARG002
        """What the first stage starts from; ``None`` for noise."""
        return None

    def refine(self, batch: Sequence[EncodedRequest], latents: Sequence[Latents]) -> list[Latents]:
        """Double and refine the picture.

        The sound is refined along, since the picture attends to it. After a guided stage that
        one's is kept: refinement without guidance makes it worse.
        """
        request = batch[0].request
        larger = upsample(self.ledger, latents)
        phase = self.second_phase(request)
        ledger = self.second_weights(request)
        refined = denoise(ledger, batch, phase, larger, watch=self.watch)
        if self.refines_sound:
            return refined
        return [replace(new, audio=old.audio) for new, old in zip(refined, latents, strict=True)]
