"""Statistics between the VAE's own latents and the normalised ones that the transformer knows."""

import torch
from torch import Tensor, nn


class PerChannelStatistics(nn.Module):
    """Mean and standard deviation of each latent channel over the training set."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The published names hold hyphens, so no attribute can be declared for them.
        self.register_buffer("mean-of-means", torch.zeros(channels))
        self.register_buffer("std-of-means", torch.ones(channels))

    def normalize(self, latent: Tensor) -> Tensor:
        """Latents of the VAE to zero mean and unit variance: ``(B, C, F, H, W)``, dtype kept."""
        return (latent - self._broadcast("mean-of-means", latent)) / self._broadcast(
            "std-of-means", latent
        )

    def un_normalize(self, latent: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        return latent * self._broadcast("std-of-means", latent) + self._broadcast(
            "mean-of-means", latent
        )

    def _broadcast(self, name: str, like: Tensor) -> Tensor:
        return self.get_buffer(name).to(like).view(-1, 1, 1, 1)
