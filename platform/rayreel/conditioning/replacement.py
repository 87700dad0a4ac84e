"""An image or a clip in place of latent frames of the target."""

from dataclasses import dataclass, replace

from torch import Tensor

from rayreel.diffusion.patchifiers import patchify_audio, patchify_video
from rayreel.diffusion.states import AudioTarget, VideoTarget
from rayreel.errors import ItemError
from rayreel.types import LatentState


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentReplacement:
    """Encoded frames that stand in for the target's own, without new tokens.

    Attributes:
        latent: ``(B, C, frames, H, W)`` on the target's grid.
        latent_index: Latent frame of the target that the first of them replaces.
        strength: 1 keeps them exactly, 0 regenerates them.
    """

    latent: Tensor
    latent_index: int = 0
    strength: float = 1.0

    def apply(self, state: LatentState, target: VideoTarget) -> LatentState:
        """Set clean content and mask of the replaced tokens.

        Raises:
            ItemError: If the frames do not lie on the target's grid, or reach beyond it.
        """
        batch, channels, frames, height, width = self.latent.shape
        shape = target.shape
        expected = (shape.batch, shape.channels, shape.height, shape.width)
        if (batch, channels, height, width) != expected:
            raise ItemError(
                f"latent frames of (B, C, H, W) {(batch, channels, height, width)} do not lie on "
                f"the target's grid {expected}; encode them at the target's resolution"
            )
        if not 0 <= self.latent_index <= shape.frames - frames:
            raise ItemError(
                f"{frames} latent frames from latent_index={self.latent_index} do not fit a target "
                f"of {shape.frames} latent frames"
            )
        start = self.latent_index * target.tokens_per_frame
        return _replaced(state, patchify_video(self.latent), start, self.strength)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundReplacement:
    """Encoded sound that stands in for a stretch of the target's own.

    Attributes:
        latent: ``(B, C, frames, bins)``.
        latent_index: Latent frame of the target that the first of them replaces.
        strength: 1 keeps it exactly, 0 regenerates it.
    """

    latent: Tensor
    latent_index: int = 0
    strength: float = 1.0

    def apply(self, state: LatentState, target: AudioTarget) -> LatentState:
        """Set clean content and mask of the replaced tokens.

        Raises:
            ItemError: If the sound reaches beyond the target.
        """
        frames = self.latent.shape[2]
        if not 0 <= self.latent_index <= target.tokens - frames:
            raise ItemError(
                f"{frames} latent frames of sound from latent_index={self.latent_index} do not fit "
                f"a target of {target.tokens}"
            )
        return _replaced(state, patchify_audio(self.latent), self.latent_index, self.strength)


def _replaced(state: LatentState, tokens: Tensor, start: int, strength: float) -> LatentState:
    replaced = slice(start, start + tokens.shape[1])
    clean, mask = state.clean_latent.clone(), state.denoise_mask.clone()
    clean[:, replaced] = tokens.to(clean)
    mask[:, replaced] = 1 - strength
    return replace(state, clean_latent=clean, denoise_mask=mask)
