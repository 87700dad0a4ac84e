"""From requests to the noisy states that are denoised, and from states back to latents.

Everything that depends on chance or on content is prepared request by request, so a request gives
the same clip in every batch, up to the rounding of larger matrix products.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from rayreel.conditioning.base import ConditioningItem
from rayreel.config.request import RenderRequest
from rayreel.diffusion.noisers import GaussianNoise, add_noise
from rayreel.diffusion.protocols import Noise
from rayreel.diffusion.states import AudioTarget, Target, VideoTarget, clear_conditioning
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import AudioLatentShape, LatentState, VideoLatentShape, seeded_generator

T = TypeVar("T", VideoTarget, AudioTarget)

NoiseSource = Callable[[RenderRequest, str], Noise]
"""Noise of a request for a purpose such as ``video/stage1``."""


def request_noise(request: RenderRequest, purpose: str) -> Noise:
    """Noise of one request for one purpose: the same on every device and in every batch."""
    return GaussianNoise([_generator(request, purpose)])


def batch_noise(
    requests: Sequence[RenderRequest], purpose: str, *, standardised: bool
) -> GaussianNoise:
    """Noise that a sampler draws for a batch: each request's as if it were alone."""
    return GaussianNoise([_generator(r, purpose) for r in requests], standardised=standardised)


def video_target(ledger: ModelLedger, request: RenderRequest, downscale: int) -> VideoTarget:
    """The picture that a phase generates, at the request's size divided by ``downscale``."""
    files = ledger.files
    shape = VideoLatentShape.from_pixels(
        frames=request.num_frames,
        height=request.height // downscale,
        width=request.width // downscale,
        channels=files.video_vae.latent_channels,
        factors=files.factors,
    )
    return VideoTarget(shape=shape, fps=request.fps, factors=files.factors)


def audio_target(ledger: ModelLedger, request: RenderRequest) -> AudioTarget:
    """The sound that a phase generates: as long as the picture."""
    config = ledger.files.audio_vae
    shape = AudioLatentShape.from_duration(
        request.duration_s,
        channels=config.network.z_channels,
        bins=config.latent_bins,
        latents_per_second=config.latents_per_second,
    )
    return AudioTarget(
        shape=shape,
        sample_rate_hz=config.sample_rate_hz,
        hop_length=config.preprocessing.stft.hop_length,
        downsample=config.downsample,
    )


def noisy_state(
    ledger: ModelLedger,
    target: T,
    start: Tensor | None,
    items: Sequence[ConditioningItem[T]],
    *,
    noise: Noise,
    noise_scale: float,
) -> LatentState:
    """One stream of one request before its first step.

    Args:
        ledger: Says where it computes.
        target: What is generated.
        start: Unbatched latent to refine, or to keep parts of; ``None`` for zeros.
        items: What it is conditioned on, applied in order.
        noise: Drawn for the target, then for appended tokens.
        noise_scale: Noise level of the first step.
    """
    latent = torch.zeros(target.shape.to_tuple()) if start is None else start[None]
    state = target.initial_state(latent.to(ledger.device, ledger.dtype))
    for item in items:
        state = item.apply(state, target)
    # The target's noise is drawn first: conditioning does not change it.
    drawn = [noise(state.latent[:, : target.tokens])]
    if state.latent.shape[1] > target.tokens:
        drawn.append(noise(state.latent[:, target.tokens :]))
    return add_noise(state, torch.cat(drawn, dim=1), noise_scale)


def stacked(states: Sequence[LatentState]) -> LatentState:
    """States of single requests as one batch."""
    first = states[0]
    joined = {
        field.name: torch.cat([getattr(state, field.name) for state in states])
        for field in fields(first)
        if getattr(first, field.name) is not None
    }
    return replace(first, **joined)


def unstacked(
    state: LatentState | None, target: Target | None, count: int
) -> Sequence[Tensor | None]:
    """Latents of a batch of denoised states, one per request; ``None`` for an absent stream."""
    if state is None or target is None:
        return [None] * count
    return target.unpatchify(clear_conditioning(state, target).latent).unbind()


def _generator(request: RenderRequest, purpose: str) -> torch.Generator:
    assert request.seed is not None, "requests are resolved"
    return seeded_generator(request.seed, purpose)
