"""What the phases of a pipeline are conditioned on: a request's files as conditioning items."""

# ruff: noqa: ARG001 - all of them are called alike

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.checkpoints.lora import Adapter
from rayreel.conditioning.attention import AttentionStrength
from rayreel.conditioning.base import ConditioningItem
from rayreel.conditioning.keyframes import Keyframe
from rayreel.conditioning.masks import Frozen, TemporalRegion
from rayreel.conditioning.references import ReferenceVideo
from rayreel.conditioning.replacement import LatentReplacement, SoundReplacement
from rayreel.config.conditions import VideoReference
from rayreel.diffusion.states import AudioTarget, VideoTarget
from rayreel.errors import ItemError
from rayreel.media.video import read_mask, stream_frames
from rayreel.pipelines.inputs import (
    EncodedRequest,
    Handover,
    encode_frames,
    encode_image,
)
from rayreel.pipelines.ledger import ModelLedger

VideoItems: TypeAlias = Sequence[ConditioningItem[VideoTarget]]
AudioItems: TypeAlias = Sequence[ConditioningItem[AudioTarget]]
VideoConditions = Callable[[ModelLedger, EncodedRequest, VideoTarget], VideoItems]
AudioConditions = Callable[[ModelLedger, EncodedRequest, AudioTarget], AudioItems]


def pinned(ledger: ModelLedger, encoded: EncodedRequest, target: VideoTarget) -> VideoItems:
    """Images, the first frame's in place of it and others appended; and where a chain left off."""
    items: list[ConditioningItem[VideoTarget]] = []
    for image in encoded.request.images:
        latent = encode_image(ledger, image, target)
        items.append(
            LatentReplacement(latent=latent, strength=image.strength)
            if image.frame == 0
            else Keyframe(latent=latent, frame_index=image.frame, strength=image.strength)
        )
    if encoded.handover:
        items += _continued(ledger, encoded.handover, target)
    return items


def keyframes(ledger: ModelLedger, encoded: EncodedRequest, target: VideoTarget) -> VideoItems:
    """Images, all of them appended: none replaces what is generated."""
    return [
        Keyframe(
            latent=encode_image(ledger, image, target),
            frame_index=image.frame,
            strength=image.strength,
        )
        for image in encoded.request.images
    ]


def references(ledger: ModelLedger, encoded: EncodedRequest, target: VideoTarget) -> VideoItems:
    """Pinned images, then the videos that an in-context adapter follows, at its scale."""
    scale, temporal = reference_scales(ledger.adapters)
    factors = ledger.files.factors
    size = (
        target.shape.height // scale * factors.height,
        target.shape.width // scale * factors.width,
    )
    frames = target.shape.pixel_frames(factors)
    items = list(pinned(ledger, encoded, target))
    for reference in encoded.request.references:
        pixels = _every(stream_frames(reference.path, stop=frames, chunk=1), temporal)
        latent = encode_frames(ledger, pixels, size)
        item = ReferenceVideo(
            latent=latent,
            strength=reference.strength,
            downscale_factor=scale,
            temporal_scale=temporal,
        )
        weights = _attention(reference, latent, factors.time)
        items.append(item if weights is None else AttentionStrength(item, weights))
    return items


def reference_scales(adapters: Iterable[Adapter]) -> tuple[int, int]:
    """Target pixels per reference pixel, and target frames per reference frame, as adapters say.

    Raises:
        ItemError: If adapters disagree.
    """
    stated = {adapter.name: adapter.reference_scales for adapter in adapters}
    scales = {scale for scale in stated.values() if scale is not None}
    if len(scales) > 1:
        raise ItemError(f"adapters disagree about the scales of their references: {stated}")
    return scales.pop() if scales else (1, 1)


def _every(frames: Iterable[Tensor], step: int) -> Iterator[Tensor]:
    """The first frame, and every ``step``-th one from the second on."""
    for index, frame in enumerate(frames):
        if index == 0 or (index - 1) % step == 0:
            yield frame


def continued_sound(
    ledger: ModelLedger, encoded: EncodedRequest, target: AudioTarget
) -> AudioItems:
    """Sound that is conditioned on nothing but, in a chain, on the sound before."""
    handover = encoded.handover
    if handover is None or handover.audio is None:
        return []
    latent = handover.audio[None].to(ledger.device, ledger.dtype)
    index = target.tokens - latent.shape[2] if handover.backward else 0
    return [SoundReplacement(latent=latent, latent_index=index)]


def kept(ledger: ModelLedger, encoded: EncodedRequest, target: AudioTarget) -> AudioItems:
    """Sound that stays as it is."""
    return [Frozen()]


def retaken_video(ledger: ModelLedger, encoded: EncodedRequest, target: VideoTarget) -> VideoItems:
    """The stretch of the picture to make anew; nothing of it where the picture is kept."""
    retake = encoded.request.retake
    assert retake is not None, "requests of this pipeline have one"
    return [TemporalRegion(retake.start_s, retake.end_s) if retake.video else Frozen()]


def retaken_audio(ledger: ModelLedger, encoded: EncodedRequest, target: AudioTarget) -> AudioItems:
    """The same for the sound."""
    retake = encoded.request.retake
    assert retake is not None, "requests of this pipeline have one"
    return [TemporalRegion(retake.start_s, retake.end_s) if retake.audio else Frozen()]


def _continued(ledger: ModelLedger, handover: Handover, target: VideoTarget) -> VideoItems:
    """Latents of the neighbouring chunk, in place of the frames that this one shares with it."""
    resize = partial(_resized, height=target.shape.height, width=target.shape.width)
    latent = resize(handover.video).to(ledger.device, ledger.dtype)
    if not handover.backward:
        return [LatentReplacement(latent=latent)]
    index = target.shape.frames - latent.shape[2]
    items: list[ConditioningItem[VideoTarget]] = [
        LatentReplacement(latent=latent, latent_index=index)
    ]
    if handover.first is not None:
        first = resize(handover.first).to(ledger.device, ledger.dtype)
        frame = (index - 1) * ledger.files.factors.time
        items.append(Keyframe(latent=first, frame_index=frame))
    return items


def _resized(latent: Tensor, *, height: int, width: int) -> Tensor:
    """``(C, K, H, W)`` to ``(1, C, K, height, width)``."""
    size = (latent.shape[1], height, width)
    if latent.shape[1:] == size:
        return latent[None]
    return F.interpolate(latent[None].float(), size=size, mode="trilinear", align_corners=False)


def _attention(
    reference: VideoReference, latent: Tensor, time_factor: int
) -> Tensor | float | None:
    """Weights of the reference's tokens ``(1, M)``, one for all, or ``None`` for full strength."""
    frames, height, width = latent.shape[2:]
    if reference.mask is None:
        return reference.attention if reference.attention < 1 else None
    mask = read_mask(reference.mask, max_frames=time_factor * (frames - 1) + 1)[:, None]
    pixels = F.interpolate(mask, size=(height, width), mode="area")[:, 0]
    if len(pixels) == 1:
        weights = pixels.expand(frames, -1, -1)
    else:
        weights = _in_latent_frames(pixels, frames, reference.mask)
    return weights.flatten()[None].to(latent.device) * reference.attention


def _in_latent_frames(pixels: Tensor, frames: int, source: str) -> Tensor:
    """The first frame, and the means of as many equal groups as there are further latent frames."""
    later = frames - 1
    if later == 0:
        return pixels[:1]
    group, rest = divmod(len(pixels) - 1, later)
    if rest or not group:
        raise ItemError(
            f"mask {source} has {len(pixels)} frames, which do not spread over {frames} latent "
            f"frames; expected one frame, or one more than a multiple of {later}"
        )
    means = pixels[1:].reshape(later, group, *pixels.shape[1:]).mean(dim=1)
    return torch.cat([pixels[:1], means])
