"""Mean and standard deviation of the audio latents over the training set."""

import torch
from torch import Tensor, nn


class PerChannelStatistics(nn.Module):
    """Normalises latents laid out as tokens ``(B, L, D)``, D running over (channel, mel bin)."""

    def __init__(self, width: int) -> None:
        """Args: width: D."""
        super().__init__()
        # The published names have hyphens, so they cannot be attributes.
        self.register_buffer("mean-of-means", torch.zeros(width))
        self.register_buffer("std-of-means", torch.ones(width))

    def normalize(self, tokens: Tensor) -> Tensor:
        """To zero mean and unit variance, in the dtype of ``tokens``."""
        mean, std = self._moments(tokens)
        return (tokens - mean) / std

    def un_normalize(self, tokens: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        mean, std = self._moments(tokens)
        return tokens * std + mean

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.get_buffer("mean-of-means"), self.get_buffer("std-of-means")
        return mean.to(like.dtype), std.to(like.dtype)
