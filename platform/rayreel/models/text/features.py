"""Hidden states of a language model to one feature vector per token and stream.

Letters: B prompts, L tokens, D width of a hidden state, S hidden states (the embedding and every
layer), C width of a stream's features. States are stacked last: (d, s) flattens to ``d * S + s``.
"""

import math

import torch
from torch import Tensor, nn

from rayreel.config.model import TextConfig

EPS = 1e-6


class FeatureExtractor(nn.Module):
    """Normalises the hidden states and projects all of them at once.

    Version 1 (2.0 checkpoints) has one projection for both streams, version 2 (2.3 and later) one
    for each. Without an audio stream there is that of the video stream alone.
    """

    def __init__(self, config: TextConfig, *, hidden_size: int, num_hidden_states: int) -> None:
        """Build for one language model.

        Args:
            config: Names the version and the widths of the streams.
            hidden_size: Width D of the language model.
            num_hidden_states: Its number S of hidden states.
        """
        super().__init__()
        self.config = config
        self.hidden_size = hidden_size
        stacked = hidden_size * num_hidden_states
        if config.feature_version == "v1":
            self.aggregate_embed = nn.Linear(stacked, config.video.width, bias=False)
        else:
            self.video_aggregate_embed = nn.Linear(stacked, config.video.width)
            if config.has_audio:
                self.audio_aggregate_embed = nn.Linear(stacked, config.audio.width)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of both streams.

        Args:
            states: ``(B, L, D, S)``.
            mask: ``(B, L)``: 1 for valid tokens, at least one per prompt; 0 for padding.

        Returns:
            Video features and, where there is an audio stream, audio features: ``(B, L, C)`` in the
            dtype of ``states``; rows of padding mean nothing.
        """
        has_audio = self.config.has_audio
        if self.config.feature_version == "v1":
            shared = self.aggregate_embed(normalize_per_layer(states, mask).flatten(2))
            return shared, shared if has_audio else None
        normed = normalize_per_token(states, mask).flatten(2)
        video = self.video_aggregate_embed(normed * self._gain(self.config.video.width))
        if not has_audio:
            return video, None
        audio = self.audio_aggregate_embed(normed * self._gain(self.config.audio.width))
        return video, audio

    def _gain(self, width: int) -> float:
        """Keeps the variance of the projection independent of the width that it leads to."""
        return math.sqrt(width / self.hidden_size)


def normalize_per_layer(states: Tensor, mask: Tensor) -> Tensor:
    """Centre each layer and divide by its range, over the valid tokens of a prompt; then times 8.

    Args:
        states: ``(B, L, D, S)``.
        mask: ``(B, L)``: 1 for valid tokens.

    Returns:
        Like ``states``, 0 at padding. In bfloat16 the statistics are rounded, the division is not.
    """
    padding = (mask == 0)[:, :, None, None]
    # int64 plus a float is float32, which keeps the mean of bfloat16 states in float32.
    count = mask.sum(dim=1)[:, None, None, None] * states.shape[2] + EPS
    mean = states.masked_fill(padding, 0).sum(dim=(1, 2), keepdim=True) / count
    low = states.masked_fill(padding, math.inf).amin(dim=(1, 2), keepdim=True)
    high = states.masked_fill(padding, -math.inf).amax(dim=(1, 2), keepdim=True)
    normed = 8 * (states - mean) / (high - low + EPS)
    return normed.masked_fill(padding, 0).to(states.dtype)


def normalize_per_token(states: Tensor, mask: Tensor) -> Tensor:
    """Divide each hidden state of each token by its root mean square.

    Args:
        states: ``(B, L, D, S)``.
        mask: ``(B, L)``: 1 for valid tokens.

    Returns:
        Like ``states``, 0 at padding.
    """
    mean_square = states.square().mean(dim=2, keepdim=True)
    normed = states * torch.rsqrt(mean_square + EPS)
    return normed.masked_fill((mask == 0)[:, :, None, None], 0)
