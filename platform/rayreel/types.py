"""Tensors that belong together, and the arithmetic of their shapes.

Letters: B batch, C channels, F frames, H height, W width, T tokens, D width, L text tokens.
"""

import hashlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ScaleFactors(NamedTuple):
    """Pixels per latent position of a video VAE along time, height and width."""

    time: int = 8
    height: int = 32
    width: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLatentShape:
    """Shape of a video latent ``(B, C, F, H, W)``."""

    batch: int
    channels: int
    frames: int
    height: int
    width: int

    @classmethod
    def from_pixels(
        cls,
        *,
        frames: int,
        height: int,
        width: int,
        channels: int,
        factors: ScaleFactors,
        batch: int = 1,
    ) -> "VideoLatentShape":
        """Shape that pixels are encoded to; what does not fit is cut off."""
        return cls(
            batch=batch,
            channels=channels,
            frames=(frames - 1) // factors.time + 1,
            height=height // factors.height,
            width=width // factors.width,
        )

    @property
    def tokens(self) -> int:
        """Tokens after patchifying with patch size 1."""
        return self.frames * self.height * self.width

    def pixel_frames(self, factors: ScaleFactors) -> int:
        """Frames that the latent decodes to."""
        return (self.frames - 1) * factors.time + 1

    def to_tuple(self) -> tuple[int, int, int, int, int]:
        """``(B, C, F, H, W)``."""
        return (self.batch, self.channels, self.frames, self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLatentShape:
    """Shape of an audio latent ``(B, C, frames, bins)``."""

    batch: int
    channels: int
    frames: int
    bins: int

    @classmethod
    def from_duration(
        cls,
        duration_s: float,
        *,
        channels: int,
        bins: int,
        latents_per_second: float = 25.0,
        batch: int = 1,
    ) -> "AudioLatentShape":
        """Shape that covers a duration, rounded half to even."""
        return cls(
            batch=batch, channels=channels, frames=round(duration_s * latents_per_second), bins=bins
        )

    def to_tuple(self) -> tuple[int, int, int, int]:
        """``(B, C, frames, bins)``."""
        return (self.batch, self.channels, self.frames, self.bins)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentState:
    """One stream while it is denoised.

    Attributes:
        latent: Noisy tokens ``(B, T, D)``.
        clean_latent: Content that conditioned tokens are pulled to, like ``latent``.
        denoise_mask: Float32 ``(B, T, 1)``: 1 generates a token, 0 keeps it.
        positions: Float32 ``(B, axes, T, 2)``: start and end of each token; seconds, then pixels.
        attention_mask: Self-attention strengths in [0, 1], ``(B, T, T)``, or ``None`` for all ones.
        keyframes_mask: ``(B, T, 1)``, non-zero for tokens of a single pixel frame, or ``None``.
    """

    latent: Tensor
    clean_latent: Tensor
    denoise_mask: Tensor
    positions: Tensor
    attention_mask: Tensor | None = None
    keyframes_mask: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Modality:
    """What the transformer reads of one stream.

    Attributes:
        latent: Tokens ``(B, T, D)``; their dtype is the dtype of the hidden states.
        sigma: Float32 ``(B,)``: noise level of the stream.
        timesteps: Float32: noise level of each token, ``denoise_mask * sigma``: ``(B, T, 1)``, or
            ``(B, 1, 1)`` where all tokens of a sample share one level.
        levels: ``None``, or float32 ``(N,)``, rising: every value of ``timesteps``. Where they are
            few, it saves the memory of modulation for each token.
        positions: Float32 ``(B, axes, T, 2)``, or ``(1, axes, T, 2)`` where all samples share them.
        context: Text ``(B, L, C)``.
        context_mask: ``None``; integer ``(B, L)``, 1 for valid tokens; or an additive bias
            ``(B, 1, 1, L)``.
        attention_mask: ``None``, or self-attention strengths in [0, 1] that broadcast to
            ``(B, T, T)``.
        keyframes_mask: ``None``, or ``(B, T, 1)``, non-zero for tokens of a single pixel frame.
        enabled: ``False`` leaves the stream as it is; it still serves as context for the other one.
    """

    latent: Tensor
    sigma: Tensor
    timesteps: Tensor
    positions: Tensor
    context: Tensor
    levels: Tensor | None = None
    context_mask: Tensor | None = None
    attention_mask: Tensor | None = None
    keyframes_mask: Tensor | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TextContext:
    """A prompt as the transformer reads it: one embedding per stream.

    Attributes:
        video: ``(L, C)`` or batched ``(B, L, C)``.
        audio: The same for the audio stream.
    """

    video: Tensor
    audio: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """What a language model makes of a prompt: one vector per token and stream, no padding.

    A transformer's connectors make a ``TextContext`` of it.

    Attributes:
        video: ``(T, C)``; T is at most L.
        audio: The same for the audio stream; the same tensor where a model projects once for both,
            of width 0 where it has no such stream.
        length: Tokens L that the prompt was cut to, and is filled up to again.
    """

    video: Tensor
    audio: Tensor
    length: int

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "TextFeatures":
        """The same on a device, and in a dtype if one is named."""
        video = self.video.to(device, dtype)
        audio = video if self.audio is self.video else self.audio.to(device, dtype)
        return replace(self, video=video, audio=audio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """A generated clip before decoding; either stream may be absent.

    Attributes:
        video: ``(C, F, H, W)``, or batched with B in front.
        audio: ``(C, frames, bins)``, or batched with B in front.
    """

    video: Tensor | None
    audio: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """A waveform: float ``(channels, samples)`` in [-1, 1]."""

    waveform: Tensor
    sample_rate_hz: int

    def stream(self) -> "SoundStream":
        """The same sound as one chunk."""
        return SoundStream(
            chunks=(chunk for chunk in (self.waveform,)),
            num_samples=self.waveform.shape[-1],
            sample_rate_hz=self.sample_rate_hz,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundStream:
    """A sound that is made while it is read, once; whoever reads it closes its chunks.

    Attributes:
        chunks: Float ``(2, samples)`` in [-1, 1], one after the other.
        num_samples: Samples of all chunks together.
        sample_rate_hz: Samples per second.
    """

    chunks: Generator[Tensor, None, None]
    num_samples: int
    sample_rate_hz: int

    def collect(self) -> Audio:
        """Read the whole sound into memory."""
        with closing(self.chunks):
            parts = list(self.chunks)
        waveform = torch.cat(parts, dim=1) if parts else torch.empty(2, 0)
        return Audio(waveform=waveform, sample_rate_hz=self.sample_rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A finished clip: RGB ``uint8`` frames ``(F, H, W, 3)`` and its sound.

    Sound alone has no frames: ``(0, 0, 0, 3)``.
    """

    frames: Tensor
    fps: float
    audio: Audio | None = None

    def stream(self) -> "ClipStream":
        """The same clip as one chunk."""
        return ClipStream(
            frames=(chunk for chunk in (self.frames,)),
            num_frames=len(self.frames),
            fps=self.fps,
            audio=self.audio,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipStream:
    """A clip that is made while it is read, once; whoever reads it closes it.

    Attributes:
        frames: RGB ``uint8`` chunks ``(F, H, W, 3)`` that make up the clip.
        num_frames: Frames of all chunks together; 0 for sound alone.
        fps: Frames per second.
        audio: The sound, whole or in chunks.
    """

    frames: Generator[Tensor, None, None]
    num_frames: int
    fps: float
    audio: Audio | SoundStream | None = None

    def collect(self) -> Clip:
        """Read all frames and the whole sound into memory, and close the stream."""
        with closing(self):
            parts = list(self.frames)
            sound = self.audio.collect() if isinstance(self.audio, SoundStream) else self.audio
        frames = torch.cat(parts) if parts else torch.empty(0, 0, 0, 3, dtype=torch.uint8)
        return Clip(frames=frames, fps=self.fps, audio=sound)

    def close(self) -> None:
        """End frames and sound, wherever they are."""
        try:
            self.frames.close()
        finally:
            if isinstance(self.audio, SoundStream):
                self.audio.chunks.close()


def repeat_batch(modality: Modality, times: int) -> Modality:
    """The same stream ``times`` over along the batch axis: ``(B, ...)`` to ``(times * B, ...)``.

    Levels stay as they are, and so do positions of a single sample: all samples share them.
    """

    def repeated(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.repeat(times, *[1] * (value.dim() - 1))

    kept = {"enabled", "levels"} | ({"positions"} if len(modality.positions) == 1 else set())
    tensors: dict[str, Any] = {
        field.name: repeated(getattr(modality, field.name))
        for field in fields(Modality)
        if field.name not in kept
    }
    return replace(modality, **tensors)


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """CPU generator for one purpose of one request, such as ``video/stage1``.

    Noise depends on the request's seed and the purpose alone: not on worker, order, batch, device.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big") >> 1)
