"""A model that teaches its own adapter to do in one step what takes it several guided ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import MemorySpec
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.config.train import DistillationSpec, TrainSpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.diffusion.denoisers import GuidedDenoiser
from rayreel.diffusion.loop import denoise
from rayreel.diffusion.steppers import Euler
from rayreel.diffusion.streams import Pair, per_stream
from rayreel.errors import SpecError
from rayreel.models.transformer.perturbations import Perturbations
from rayreel.models.transformer.text import TextMemory
from rayreel.pipelines.devices import Device
from rayreel.pipelines.faults import request_faults
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.one_stage import OneStage
from rayreel.pipelines.phases import contexts, features
from rayreel.pipelines.resolve import resolve
from rayreel.pipelines.texts import TextStore
from rayreel.training.adapters import without_adapter
from rayreel.training.example import Batch, StreamBatch
from rayreel.types import LatentState, Modality, TextContext


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Makes targets of what the model does without the adapter, guided and in small steps.

    Attributes:
        model: With the adapter that learns.
        dtype: That it computes in.
        guidance: Of the teacher's steps, for video and for audio.
        negative: What they are guided away from, if anything.
        levels: Noise levels that the adapter shall go along, falling, and 0 at their end.
        substeps: Steps of the teacher from one level to the next.

    Reference:
        Salimans and Ho 2022, arXiv:2202.00512, progressive distillation; Meng et al. 2023,
        arXiv:2210.03142, of guided models.
    """

    model: nn.Module
    dtype: torch.dtype
    guidance: tuple[Guidance, Guidance]
    negative: TextContext | None
    levels: tuple[float, ...]
    substeps: int

    @torch.no_grad()
    def taught(self, batch: Batch, contexts: Sequence[TextContext]) -> Batch:
        """A batch whose targets are the mean velocities of the teacher up to the next level.

        Args:
            batch: At noise levels of ``levels``, which both streams of a sample share.
            contexts: Of each sample, unbatched, in order.

        Returns:
            The batch with targets like those it had. What is shown of it stays as it is.
        """
        streams = batch.video, batch.audio
        (sigma, *_) = [stream.sigma for stream in streams if stream]
        targets = per_stream(lambda stream: torch.zeros_like(stream.noisy), streams)
        with without_adapter(self.model):
            for level, following in pairwise(self.levels):
                rows = (sigma == sigma.new_tensor(level)).nonzero().flatten()
                if not len(rows):
                    continue
                states = per_stream(lambda stream, rows=rows: _state(stream, rows), streams)
                levels = torch.linspace(level, following, self.substeps + 1)
                denoiser = self._denoiser([contexts[row] for row in rows.tolist()])
                ends = denoise(levels, states, denoiser, (Euler(), Euler()))
                for target, start, end in zip(targets, states, ends, strict=True):
                    if target is not None and start is not None and end is not None:
                        target[rows] = (end.latent - start.latent) / (following - level)
        video, audio = per_stream(
            lambda stream, target: (
                stream if stream.target is None else replace(stream, target=target)
            ),
            streams,
            targets,
        )
        return replace(batch, video=video, audio=audio)

    def _denoiser(self, contexts: Sequence[TextContext]) -> GuidedDenoiser:
        positive = TextContext(
            video=torch.stack([one.video for one in contexts]),
            audio=torch.stack([one.audio for one in contexts]),
        )
        video, audio = self.guidance
        return GuidedDenoiser(
            model=self._velocities,
            positive=positive,
            negative=self.negative,
            video_guidance=video,
            audio_guidance=audio,
        )

    def _velocities(
        self,
        video: Modality | None,
        audio: Modality | None,
        perturbations: Perturbations | None,
        memory: TextMemory | None,
    ) -> Pair[Tensor]:
        """The model's, of float32 tokens: steps may be smaller than what its dtype tells apart."""

        def cast(stream: Modality) -> Modality:
            latent, context = stream.latent.to(self.dtype), stream.context.to(self.dtype)
            return replace(stream, latent=latent, context=context)

        velocities: Pair[Tensor] = self.model(
            *per_stream(cast, (video, audio)), perturbations, memory
        )
        return velocities


def teacher_request(spec: DistillationSpec, files: ModelFiles) -> RenderRequest:
    """How a teacher is guided, as a clip of one guided stage is.

    Args:
        spec: What is asked for.
        files: Of the model.

    Raises:
        SpecError: Naming each field that the model cannot follow, and what was expected.
    """
    said = spec.model_dump(exclude={"substeps"}, exclude_unset=True)
    request = RenderRequest(prompt="any", pipeline="one_stage", seed=0, **said)
    if faults := request_faults(request, files):
        lines = [f"  {field}: {fault}" for field, fault in faults]
        raise SpecError("\n".join(["distillation:", *lines]))
    return resolve(request, files, OneStage)


def teacher_of(
    spec: TrainSpec, files: ModelFiles, model: nn.Module, device: Device
) -> Teacher | None:
    """The teacher that a spec wants, if it wants one.

    Its negative prompt is encoded once for a run directory, as those of validation clips are.

    Args:
        spec: Of the run.
        files: Of the model.
        model: With its adapter, on its device.
        device: Where the run computes, and in which dtype.

    Raises:
        SpecError: As ``teacher_request`` does.
    """
    if spec.distillation is None:
        return None
    request = teacher_request(spec.distillation, files)
    return Teacher(
        model=model,
        dtype=device.torch_dtype,
        guidance=(request.video_guidance or Guidance(), request.audio_guidance or Guidance()),
        negative=_negative(spec, request.negative_prompt, device),
        levels=(*sorted(set(spec.timesteps.levels), reverse=True), 0.0),
        substeps=spec.distillation.substeps,
    )


def _negative(spec: TrainSpec, prompt: str | None, device: Device) -> TextContext | None:
    """What a negative prompt is to the model, for any number of samples."""
    if prompt is None:
        return None
    # What is loaded for it is needed once, and goes.
    ledger = ModelLedger(spec.model, device, MemorySpec(text_encoder="per_call"))
    texts = TextStore(RecordStore(Storage(spec.output)), ledger.files)
    (context,) = contexts(ledger, features(ledger, [prompt], texts))
    return TextContext(video=context.video[None], audio=context.audio[None])


def _state(stream: StreamBatch, rows: Tensor) -> LatentState:
    """Some samples of a stream, where what is not learned is kept."""
    noisy, positions = stream.noisy[rows], stream.positions
    return LatentState(
        latent=noisy,
        clean_latent=noisy,
        denoise_mask=stream.loss_mask[rows][..., None],
        positions=positions if len(positions) == 1 else positions[rows],
        keyframes_mask=None if stream.keyframes_mask is None else stream.keyframes_mask[rows],
    )
