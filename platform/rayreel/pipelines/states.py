"""From requests to the noisy states that are denoised, and from states back to latents.

Everything that depends on chance or on content is prepared request by request, so a request gives
the same clip in every batch, up to the rounding of larger matrix products.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import fsspec
import torch
from torch import Tensor

from rayreel.conditioning.keyframes import Keyframe
from rayreel.conditioning.replacement import LatentReplacement
from rayreel.config.request import ImageCondition, RenderRequest
from rayreel.diffusion.noisers import GaussianNoise, add_noise
from rayreel.diffusion.protocols import Noise
from rayreel.diffusion.states import AudioTarget, Target, VideoTarget, clear_conditioning
from rayreel.errors import MediaError
from rayreel.media.image import fit, load_image, recompress, to_model_input
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import AudioLatentShape, LatentState, VideoLatentShape, seeded_generator

NoiseSource = Callable[[RenderRequest, str], Noise]
"""Noise of a request for a purpose such as ``video/stage1``."""


def request_noise(request: RenderRequest, purpose: str) -> Noise:
    """Noise of one request for one purpose: the same on every device and in every batch."""
    assert request.seed is not None, "requests are resolved"
    return GaussianNoise([seeded_generator(request.seed, purpose)])


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


def video_state(
    ledger: ModelLedger,
    request: RenderRequest,
    target: VideoTarget,
    start: Tensor | None,
    noise: Noise,
    noise_scale: float,
) -> LatentState:
    """The picture of one request before its first step.

    Args:
        ledger: For the video encoder, where the request has images.
        request: The request.
        target: What is generated.
        start: Latent ``(C, F, H, W)`` to refine; ``None`` for zeros.
        noise: Drawn for the target, then for appended tokens.
        noise_scale: Noise level of the first step.
    """
    state = _initial_state(ledger, target, start)
    for image in request.images:
        state = _condition(ledger, image, target).apply(state, target)
    return _noised(state, target, noise, noise_scale)


def audio_state(
    ledger: ModelLedger,
    target: AudioTarget,
    start: Tensor | None,
    noise: Noise,
    noise_scale: float,
) -> LatentState:
    """The sound of one request before its first step; arguments as for ``video_state``."""
    return _noised(_initial_state(ledger, target, start), target, noise, noise_scale)


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


def _initial_state(ledger: ModelLedger, target: Target, start: Tensor | None) -> LatentState:
    latent = torch.zeros(target.shape.to_tuple()) if start is None else start[None]
    return target.initial_state(latent.to(ledger.device, ledger.dtype))


def _condition(
    ledger: ModelLedger, image: ImageCondition, target: VideoTarget
) -> LatentReplacement | Keyframe:
    """An image at the first frame replaces it; at any other one it is appended as a keyframe."""
    factors, shape = ledger.files.factors, target.shape
    try:
        with fsspec.open(image.path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise MediaError(f"cannot read image {image.path}: {error}") from error
    try:
        pixels = recompress(load_image(data), image.crf or 0)
    except MediaError as error:
        raise MediaError(f"image {image.path}: {error}") from error
    frame = to_model_input(fit(pixels, shape.height * factors.height, shape.width * factors.width))
    with ledger.video_encoder() as encoder:
        latent = encoder(frame.to(ledger.device, ledger.dtype))
    if image.frame == 0:
        return LatentReplacement(latent=latent, strength=image.strength)
    return Keyframe(latent=latent, frame_index=image.frame, strength=image.strength)


def _noised(state: LatentState, target: Target, noise: Noise, noise_scale: float) -> LatentState:
    # The target's noise is drawn first: conditioning does not change it.
    drawn = [noise(state.latent[:, : target.tokens])]
    if state.latent.shape[1] > target.tokens:
        drawn.append(noise(state.latent[:, target.tokens :]))
    return add_noise(state, torch.cat(drawn, dim=1), noise_scale)
