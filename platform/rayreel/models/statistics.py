"""Statistics that turn a VAE's own latents into the unit-variance latents of the transformer."""

import torch
from torch import Tensor, nn


class PerChannelStatistics(nn.Module):
    """Mean and standard deviation of each latent channel over the training set."""

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        """Make room for them.

        Args:
            channels: Number of channels.
            axis: Where a latent keeps them: 1 for ``(B, C, F, H, W)``, -1 for tokens ``(B, L, D)``.
        """
        super().__init__()
        self.axis = axis
        # The published names hold hyphens, so no attribute can be declared for them.
        self.register_buffer("mean-of-means", torch.zeros(channels))
        self.register_buffer("std-of-means", torch.ones(channels))

    def normalize(self, latent: Tensor) -> Tensor:
        """To zero mean and unit variance, in the dtype of ``latent``."""
        return (latent - self._along("mean-of-means", latent)) / self._along("std-of-means", latent)

    def un_normalize(self, latent: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        return latent * self._along("std-of-means", latent) + self._along("mean-of-means", latent)

    def _along(self, name: str, like: Tensor) -> Tensor:
        shape = [1] * like.dim()
        shape[self.axis] = -1
        return self.get_buffer(name).to(like).view(shape)
