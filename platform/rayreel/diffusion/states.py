"""The state of a stream before the first step and after the last one."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rayreel.diffusion.patchifiers import (
    audio_positions,
    patchify_audio,
    patchify_video,
    unpatchify_audio,
    unpatchify_video,
    video_positions,
)
from rayreel.types import AudioLatentShape, LatentState, ScaleFactors, VideoLatentShape


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTarget:
    """The video to generate: its latent shape, and what maps it to seconds and pixels.

    Its tokens come first in a state; conditioning appends behind them.
    """

    shape: VideoLatentShape
    fps: float
    factors: ScaleFactors = field(default_factory=ScaleFactors)

    @property
    def tokens(self) -> int:
        """Number of target tokens."""
        return self.shape.tokens

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one latent frame."""
        return self.shape.height * self.shape.width

    def initial_state(self, latent: Tensor) -> LatentState:
        """Everything to be generated, starting from ``latent``: zeros, or what is to be refined.

        Args:
            latent: ``(B, C, F, H, W)``; its dtype and device become those of the state.

        Raises:
            ValueError: If the shape is not the target's.
        """
        state = _initial_state(
            latent,
            self.shape,
            patchify_video(latent),
            video_positions(self.shape, fps=self.fps, factors=self.factors),
        )
        keyframes_mask = torch.zeros_like(state.denoise_mask)
        keyframes_mask[:, : self.tokens_per_frame] = 1
        return replace(state, keyframes_mask=keyframes_mask)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Target tokens ``(B, T, D)`` as a latent ``(B, D, F, H, W)``."""
        return unpatchify_video(tokens, self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTarget:
    """The sound to generate: its latent shape, and what maps it to seconds.

    Attributes:
        shape: Latent shape.
        sample_rate_hz: Rate of the waveform behind the mel spectrogram.
        hop_length: Samples per mel frame.
        downsample: Mel frames per latent frame.
    """

    shape: AudioLatentShape
    sample_rate_hz: int = 16000
    hop_length: int = 160
    downsample: int = 4

    @property
    def tokens(self) -> int:
        """Number of target tokens."""
        return self.shape.frames

    def initial_state(self, latent: Tensor) -> LatentState:
        """Everything to be generated, starting from ``latent``: zeros, or what is to be refined.

        Args:
            latent: ``(B, C, frames, bins)``; its dtype and device become those of the state.

        Raises:
            ValueError: If the shape is not the target's.
        """
        positions = audio_positions(
            self.shape,
            sample_rate_hz=self.sample_rate_hz,
            hop_length=self.hop_length,
            downsample=self.downsample,
        )
        return _initial_state(latent, self.shape, patchify_audio(latent), positions)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Target tokens ``(B, T, D)`` as a latent ``(B, C, frames, bins)``."""
        return unpatchify_audio(tokens, self.shape)


Target = VideoTarget | AudioTarget


def clear_conditioning(state: LatentState, target: Target) -> LatentState:
    """The target tokens alone, all of them free again; the one place that removes tokens."""
    kept = target.tokens
    return LatentState(
        latent=state.latent[:, :kept],
        clean_latent=state.clean_latent[:, :kept],
        denoise_mask=torch.ones_like(state.denoise_mask[:, :kept]),
        positions=state.positions[:, :, :kept],
    )


def frozen(state: LatentState) -> LatentState:
    """The same stream with nothing to generate: it only serves as context for the other one."""
    return replace(state, denoise_mask=torch.zeros_like(state.denoise_mask))


def _initial_state(
    latent: Tensor, shape: VideoLatentShape | AudioLatentShape, tokens: Tensor, positions: Tensor
) -> LatentState:
    if latent.shape != shape.to_tuple():
        raise ValueError(f"latent is {tuple(latent.shape)}, the target is {shape.to_tuple()}")
    return LatentState(
        latent=tokens,
        clean_latent=tokens.clone(),
        denoise_mask=torch.ones(*tokens.shape[:2], 1, device=tokens.device),
        positions=positions.to(tokens.device),
    )
