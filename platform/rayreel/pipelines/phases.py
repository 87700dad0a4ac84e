"""What the pipelines share: the steps from a request to latents, each for a batch of requests.

Requests of one batch agree in ``batch_key``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rayreel.conditioning.base import ConditioningItem
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.diffusion.denoisers import GuidedDenoiser, SimpleDenoiser, VelocityModel
from rayreel.diffusion.protocols import Denoiser, Noise, Scheduler
from rayreel.diffusion.samplers import SAMPLERS
from rayreel.diffusion.schedulers import DISTILLED_SIGMAS, SCHEDULERS, STAGE_2_SIGMAS
from rayreel.diffusion.watch import Watch, watched
from rayreel.models.upsampler import upsample_latents
from rayreel.pipelines import conditions
from rayreel.pipelines.conditions import AudioConditions, VideoConditions
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.states import (
    NoiseSource,
    T,
    audio_target,
    batch_noise,
    noisy_state,
    request_noise,
    stacked,
    unstacked,
    video_target,
)
from rayreel.pipelines.texts import TextStore
from rayreel.types import Latents, LatentState, TextContext, TextFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One denoising run of a pipeline.

    Attributes:
        name: Keeps the noise of a request's runs apart.
        downscale: Divisor of the request's width and height.
        sigmas: Noise levels ``(steps + 1,)``; the first one is how much of the start is noised.
        guided: Whether the request's guidance applies.
        sampler: Name of the sampler that takes the steps.
        video: What the picture is conditioned on.
        audio: What the sound is conditioned on.
    """

    name: str
    downscale: int
    sigmas: Tensor
    guided: bool
    sampler: str = "euler"
    video: VideoConditions = conditions.pinned
    audio: AudioConditions = conditions.continued_sound


def batch_key(request: RenderRequest) -> tuple[object, ...]:
    """What requests must agree in to be denoised in one batch."""
    return (
        request.pipeline,
        (request.num_frames, request.fps, request.height, request.width) if request.video else None,
        request.duration_s if request.audio else None,
        (request.steps, request.scheduler, request.sampler),
        (request.sigmas, request.stage2_sigmas),
        (request.video_guidance, request.audio_guidance),
        request.loras,
        # How many tokens are appended; for videos that shows only when they are read.
        sum(image.frame > 0 or request.pipeline == "keyframes" for image in request.images),
        (request.references, request.retake),
    )


def first_stage(request: RenderRequest, *, downscale: int, guided: bool) -> Phase:
    """From noise to a clip, by guidance or by distilled weights.

    Args:
        request: Resolved.
        downscale: Divisor of its width and height.
        guided: Whether its steps and its guidance apply.
    """
    sigmas = guided_sigmas(request) if guided else request.sigmas or DISTILLED_SIGMAS
    return Phase(
        name="stage1",
        downscale=downscale,
        sigmas=torch.as_tensor(sigmas),
        guided=guided,
        sampler=request.sampler or "euler",
    )


def guided_sigmas(request: RenderRequest, scheduler: Scheduler | None = None) -> Tensor:
    """Noise levels of a guided stage: the request's own, or its scheduler's over its steps.

    Args:
        request: Resolved.
        scheduler: In place of the request's.
    """
    if request.sigmas is not None:
        return torch.tensor(request.sigmas)
    assert request.steps is not None, "guided requests are resolved"
    return (scheduler or SCHEDULERS[request.scheduler]()).sigmas(request.steps)


def second_stage(request: RenderRequest) -> Phase:
    """Refinement of upsampled latents: a few unguided steps at full size."""
    sigmas = torch.tensor(request.stage2_sigmas or STAGE_2_SIGMAS)
    return Phase(name="stage2", downscale=1, sigmas=sigmas, guided=False)


@torch.inference_mode()
def encode(
    ledger: ModelLedger,
    requests: Sequence[RenderRequest],
    known: Mapping[str, TextContext] | None = None,
    store: TextStore | None = None,
) -> list[EncodedRequest]:
    """Encode the prompts of requests, and the negative prompts of guided ones, each text once.

    Args:
        ledger: For the text encoder and the connectors.
        requests: Resolved.
        known: Texts that are encoded already.
        store: Where features of texts are looked for first and kept.
    """
    found = dict(known or {})
    if new := [text for text in texts_of(requests) if text not in found]:
        found |= zip(new, contexts(ledger, features(ledger, new, store)), strict=True)
    return [
        EncodedRequest(
            request=request,
            context=found[request.prompt],
            negative=None if request.negative_prompt is None else found[request.negative_prompt],
        )
        for request in requests
    ]


def texts_of(requests: Iterable[RenderRequest]) -> list[str]:
    """Prompts and negative prompts of requests, each text once."""
    texts = (text for r in requests for text in (r.prompt, r.negative_prompt))
    return list(dict.fromkeys(text for text in texts if text is not None))


@torch.inference_mode()
def features(
    ledger: ModelLedger, texts: Sequence[str], store: TextStore | None = None
) -> list[TextFeatures]:
    """The first half of encoding: what the language model makes of texts, in one batch.

    Args:
        ledger: For the text encoder; it is not asked for where a store knows all texts.
        texts: Any.
        store: Where features are looked for first; new ones are put there, as one part.
    """
    found = {text: one for text in texts if store and (one := store.get(text))}
    if new := [text for text in dict.fromkeys(texts) if text not in found]:
        with ledger.text_encoder() as encoder:
            made = dict(zip(new, encoder(new), strict=True))
        if store:
            store.put(made)
        found |= made
    return [found[text] for text in texts]


@torch.inference_mode()
def contexts(ledger: ModelLedger, features: Sequence[TextFeatures]) -> list[TextContext]:
    """The second half: what the transformer attends to; the language model is not needed.

    Args:
        ledger: For the connectors.
        features: At least one.
    """
    with ledger.text_connectors() as connectors:
        found: list[TextContext] = connectors(
            [one.to(ledger.device, ledger.dtype) for one in features]
        )
    return found


@torch.inference_mode()
def denoise(
    ledger: ModelLedger,
    batch: Sequence[EncodedRequest],
    phase: Phase,
    start: Sequence[Latents] | None = None,
    *,
    noise: NoiseSource = request_noise,
    watch: Watch | None = None,
) -> list[Latents]:
    """Denoise a batch of requests.

    Args:
        ledger: For the transformer, with the adapters of this phase, and for the encoders of what
            requests are conditioned on.
        batch: Requests of one ``batch_key``.
        phase: What to run.
        start: One clip per request to refine, or to keep parts of; ``None`` starts from noise.
        noise: Noise of a request for a purpose such as ``video/stage1``.
        watch: Told of each step, and asked before it whether to go on.

    Returns:
        One clip per request, unbatched, on the ledger's device.

    Raises:
        MediaError: If a file of a request cannot be read.
        Cancelled: If the watch says so.
    """
    requests = [encoded.request for encoded in batch]
    begin = start or [Latents(video=None, audio=None)] * len(requests)
    picture = video_target(ledger, requests[0], phase.downscale) if requests[0].video else None
    sound = audio_target(ledger, requests[0]) if requests[0].audio else None
    noisy = partial(_noisy_batch, ledger, batch, noise_scale=float(phase.sigmas[0]))
    video = noisy(
        picture,
        phase.video,
        [latents.video for latents in begin],
        [noise(request, f"video/{phase.name}") for request in requests],
    )
    audio = noisy(
        sound,
        phase.audio,
        [latents.audio for latents in begin],
        [noise(request, f"audio/{phase.name}") for request in requests],
    )
    sampler = SAMPLERS[phase.sampler]()
    later = partial(batch_noise, requests, standardised=sampler.standardised_noise)
    loop = sampler.loop((later(f"video/{phase.name}/steps"), later(f"audio/{phase.name}/steps")))
    with ledger.transformer() as transformer:
        denoiser = _denoiser(
            ledger, transformer, batch, guided=phase.guided, force_uncond=sampler.needs_uncond
        )
        if watch:
            denoiser = watched(denoiser, watch, phase.name, len(phase.sigmas) - 1, picture)
        video, audio = loop(phase.sigmas, (video, audio), denoiser)
    return [
        Latents(video=one_video, audio=one_audio)
        for one_video, one_audio in zip(
            unstacked(video, picture, len(batch)),
            unstacked(audio, sound, len(batch)),
            strict=True,
        )
    ]


def _noisy_batch(
    ledger: ModelLedger,
    batch: Sequence[EncodedRequest],
    target: T | None,
    conditions_of: Callable[[ModelLedger, EncodedRequest, T], Sequence[ConditioningItem[T]]],
    starts: Sequence[Tensor | None],
    noises: Sequence[Noise],
    *,
    noise_scale: float,
) -> LatentState | None:
    """One stream of a batch before its first step; ``None`` where it is absent."""
    if target is None:
        return None
    return stacked(
        [
            noisy_state(
                ledger,
                target,
                start,
                conditions_of(ledger, encoded, target),
                noise=noise,
                noise_scale=noise_scale,
            )
            for encoded, start, noise in zip(batch, starts, noises, strict=True)
        ]
    )


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
    force_uncond: bool,
) -> Denoiser:
    positive = _joined(ledger, [encoded.context for encoded in batch])
    if not guided:
        return SimpleDenoiser(transformer, positive)
    request = batch[0].request
    negatives = [encoded.negative for encoded in batch if encoded.negative is not None]
    return GuidedDenoiser(
        model=transformer,
        positive=positive,
        negative=_joined(ledger, negatives) if negatives else None,
        video_guidance=request.video_guidance or Guidance(),
        audio_guidance=request.audio_guidance or Guidance(),
        force_uncond=force_uncond,
    )


def _joined(ledger: ModelLedger, contexts: Sequence[TextContext]) -> TextContext:
    def join(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).to(ledger.device, ledger.dtype)

    return TextContext(
        video=join([context.video for context in contexts]),
        audio=join([context.audio for context in contexts]),
    )
