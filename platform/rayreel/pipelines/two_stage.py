"""A guided stage at half size, then the latents are doubled and refined by distilled weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rayreel.config.request import RenderRequest
from rayreel.pipelines.base import Pipeline, PipelineTraits
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase, denoise, second_stage, upsample
from rayreel.types import Latents


class TwoStage(Pipeline):
    """The standard pipeline: structure from guidance at half size, detail from refinement."""

    traits = PipelineTraits(stages=2, guided=True, needs=("upsampler", "distilled_lora"))
    refines_sound: ClassVar[bool] = False

    def second_phase(self, request: RenderRequest) -> Phase:
        """What the second stage runs: a few unguided steps at full size."""
        video, audio = self.video_conditions[1], self.audio_conditions[1]
        phase = second_stage(request)
        return replace(phase, sampler=self.refiner, video=video, audio=audio)

    def second_weights(self, request: RenderRequest) -> ModelLedger:
        """With which transformer."""
        return self.distilled(request)

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
