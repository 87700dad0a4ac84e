"""What the pipelines share: the steps from a request to latents, each for a batch of requests.

Requests of one batch agree in ``batch_key``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.diffusion.denoisers import GuidedDenoiser, SimpleDenoiser, VelocityModel
from rayreel.diffusion.loop import denoise as denoising_loop
from rayreel.diffusion.protocols import Denoiser
from rayreel.diffusion.schedulers import (
    STAGE_2_SIGMAS,
    LinearQuadraticScheduler,
    LTX2Scheduler,
)
from rayreel.diffusion.steppers import Euler
from rayreel.models.upsampler import upsample_latents
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.states import (
    NoiseSource,
    audio_state,
    audio_target,
    request_noise,
    stacked,
    unstacked,
    video_state,
    video_target,
)
from rayreel.types import Latents, LatentState, TextContext


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRequest:
    """A resolved request and its text.

    Attributes:
        request: The request, every field set.
        context: The prompt.
        negative: The negative prompt, where the request is guided.
    """

    request: RenderRequest
    context: TextContext
    negative: TextContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One denoising run of a pipeline.

    Attributes:
        name: Keeps the noise of a request's runs apart.
        downscale: Divisor of the request's width and height.
        sigmas: Noise levels ``(steps + 1,)``; the first one is how much of the start is noised.
        guided: Whether the request's guidance applies.
    """

    name: str
    downscale: int
    sigmas: Tensor
    guided: bool


STAGE_2 = Phase(name="stage2", downscale=1, sigmas=torch.tensor(STAGE_2_SIGMAS), guided=False)
"""Refinement of upsampled latents: a few unguided steps at full size."""


def batch_key(request: RenderRequest) -> tuple[object, ...]:
    """What requests must agree in to be denoised in one batch."""
    appended = sum(image.frame > 0 for image in request.images)
    return (
        request.pipeline,
        (request.num_frames, request.height, request.width),
        request.duration_s if request.audio else None,
        (request.steps, request.scheduler),
        (request.video_guidance, request.audio_guidance),
        appended,
    )


def run_sigmas(request: RenderRequest) -> Tensor:
    """Noise levels of the guided stage: the request's scheduler over its steps."""
    assert request.steps is not None, "guided requests are resolved"
    scheduler = LTX2Scheduler() if request.scheduler == "ltx2" else LinearQuadraticScheduler()
    return scheduler.sigmas(request.steps)


@torch.inference_mode()
def encode(
    ledger: ModelLedger,
    requests: Sequence[RenderRequest],
    known: Mapping[str, TextContext] | None = None,
) -> list[EncodedRequest]:
    """Encode the prompts of requests, and the negative prompts of guided ones, each text once.

    Args:
        ledger: For the text encoder.
        requests: Resolved.
        known: Texts that are encoded already.
    """
    texts = [text for r in requests for text in (r.prompt, r.negative_prompt) if text is not None]
    contexts = dict(known or {})
    if new := [text for text in dict.fromkeys(texts) if text not in contexts]:
        with ledger.text_encoder() as encoder:
            contexts |= zip(new, encoder(new), strict=True)
    return [
        EncodedRequest(
            request=request,
            context=contexts[request.prompt],
            negative=None if request.negative_prompt is None else contexts[request.negative_prompt],
        )
        for request in requests
    ]


@torch.inference_mode()
def denoise(
    ledger: ModelLedger,
    batch: Sequence[EncodedRequest],
    phase: Phase,
    start: Sequence[Latents] | None = None,
    noise: NoiseSource = request_noise,
) -> list[Latents]:
    """Denoise a batch of requests.

    Args:
        ledger: For the transformer, with the adapters of this phase, and for the video encoder,
            where requests are conditioned on images.
        batch: Requests of one ``batch_key``.
        phase: What to run.
        start: One clip per request to refine; ``None`` starts from noise.
        noise: Noise of a request for a purpose such as ``video/stage1``.

    Returns:
        One clip per request, unbatched, on the ledger's device.
    """
    requests = [encoded.request for encoded in batch]
    begin = start or [Latents(video=None, audio=None)] * len(requests)
    pairs = list(zip(requests, begin, strict=True))
    scale = float(phase.sigmas[0])
    picture, sound = video_target(ledger, requests[0], phase.downscale), None
    video: LatentState | None = stacked(
        [
            video_state(ledger, r, picture, s.video, noise(r, f"video/{phase.name}"), scale)
            for r, s in pairs
        ]
    )
    audio: LatentState | None = None
    if requests[0].audio:
        sound = audio_target(ledger, requests[0])
        audio = stacked(
            [
                audio_state(ledger, sound, s.audio, noise(r, f"audio/{phase.name}"), scale)
                for r, s in pairs
            ]
        )
    with ledger.transformer() as transformer:
        denoiser = _denoiser(ledger, transformer, batch, guided=phase.guided)
        video, audio = denoising_loop(phase.sigmas, (video, audio), denoiser, (Euler(), Euler()))
    return [
        Latents(video=one_video, audio=one_audio)
        for one_video, one_audio in zip(
            unstacked(video, picture, len(batch)),
            unstacked(audio, sound, len(batch)),
            strict=True,
        )
    ]


@torch.inference_mode()
def upsample(ledger: ModelLedger, batch: Sequence[Latents]) -> list[Latents]:
    """Double width and height of the pictures; the sound stays."""
    videos = [latents.video for latents in batch if latents.video is not None]
    latents = torch.stack(videos).to(ledger.device, ledger.dtype)
    with ledger.upsampler() as upsampler, ledger.video_statistics() as statistics:
        larger = upsample_latents(upsampler, statistics, latents)
    return [Latents(video=video, audio=one.audio) for video, one in zip(larger, batch, strict=True)]


def _denoiser(
    ledger: ModelLedger,
    transformer: VelocityModel,
    batch: Sequence[EncodedRequest],
    *,
    guided: bool,
) -> Denoiser:
    positive = _joined(ledger, [encoded.context for encoded in batch])
    if not guided:
        return SimpleDenoiser(transformer, positive)
    request = batch[0].request
    return GuidedDenoiser(
        model=transformer,
        positive=positive,
        negative=_joined(ledger, [e.negative for e in batch if e.negative is not None]),
        video_guidance=request.video_guidance or Guidance(),
        audio_guidance=request.audio_guidance or Guidance(),
    )


def _joined(ledger: ModelLedger, contexts: Sequence[TextContext]) -> TextContext:
    def join(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).to(ledger.device, ledger.dtype)

    return TextContext(
        video=join([context.video for context in contexts]),
        audio=join([context.audio for context in contexts]),
    )
