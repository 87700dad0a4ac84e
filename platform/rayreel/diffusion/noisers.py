"""Where noise comes from, and how it enters a state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rayreel.types import LatentState


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Standard normal noise with one CPU generator per request.

    Drawn in float32 on the CPU and then moved, so a request gets the same noise on every device and
    in every batch.

    Attributes:
        generators: One per batch item, in order.
        standardised: Whether each draw is shifted and scaled to mean 0 and deviation 1, as the
            second-order sampler wants it.
    """

    generators: Sequence[torch.Generator]
    standardised: bool = False

    def __call__(self, like: Tensor) -> Tensor:
        """The next noise for tokens ``(B, T, D)``, float32 on their device.

        Raises:
            ValueError: If there is not one generator per batch item.
        """
        if len(self.generators) != len(like):
            raise ValueError(f"{len(self.generators)} generators for a batch of {len(like)}")
        rows = [torch.randn(like.shape[1:], generator=g) for g in self.generators]
        noise = torch.stack(rows)
        return (standardise(noise) if self.standardised else noise).to(like.device)


def standardise(noise: Tensor) -> Tensor:
    """Each batch item of ``(B, T, D)`` shifted and scaled to mean 0 and deviation 1."""
    mean, std = noise.mean((-2, -1), keepdim=True), noise.std((-2, -1), keepdim=True)
    return (noise - mean) / std


def add_noise(state: LatentState, noise: Tensor, scale: float) -> LatentState:
    """Noise what is to be generated, and put the clean content where it is kept.

    Args:
        state: Conditioning included: appended tokens are noised as their mask says.
        noise: Standard normal, ``(B, T, D)``.
        scale: Noise level of the run's first step: 1 ignores ``state.latent``.
    """
    noised = torch.lerp(state.latent.float(), noise.float(), scale)
    mixed = torch.lerp(state.clean_latent.float(), noised, state.denoise_mask)
    return replace(state, latent=mixed.to(state.latent.dtype))
