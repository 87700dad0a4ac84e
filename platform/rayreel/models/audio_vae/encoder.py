"""Encoder of the audio VAE.

Letters: B batch, S stereo channels, T mel frames, M mel bins; of the latent, C channels, L frames,
F bins.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from rayreel.config.model import AudioNetworkConfig, AudioVAEConfig
from rayreel.models.audio_vae.layers import (
    CausalConv2d,
    Downsample,
    Level,
    Middle,
    pixel_norm,
)
from rayreel.models.statistics import PerChannelStatistics


class DownLevel(Level):
    """Residual blocks of one resolution, then a downsampling unless it is the lowest."""

    def __init__(
        self, in_channels: int, out_channels: int, level: int, config: AudioNetworkConfig
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            level=level,
            num_blocks=config.num_res_blocks,
            config=config,
        )
        lowest = level == len(config.ch_mult) - 1
        self.downsample = (
            nn.Identity() if lowest else Downsample(out_channels, config.causality_axis)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to half the height and width."""
        return self.downsample(super().forward(x))


class AudioEncoder(nn.Module):
    """Log-mel spectrogram to normalised latent.

    Attributes:
        config: Also says which mel spectrogram the network was trained on.
    """

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        self.config = config
        net = config.network
        widths = [net.ch * multiplier for multiplier in net.ch_mult]
        self.conv_in = CausalConv2d(net.in_channels, net.ch, 3, net.causality_axis)
        self.down = nn.ModuleList(
            DownLevel(before, after, level, net)
            for level, (before, after) in enumerate(pairwise([net.ch, *widths]))
        )
        self.mid = Middle(widths[-1], net)
        # The second half of a doubled output is the log-variance.
        moments = net.z_channels * (2 if net.double_z else 1)
        self.conv_out = CausalConv2d(widths[-1], moments, 3, net.causality_axis)
        self.per_channel_statistics = PerChannelStatistics(net.ch, axis=-1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which inputs must have."""
        return self.conv_in.conv.weight.dtype

    def forward(self, mel_BSTM: Tensor) -> Tensor:
        """Encode to the mean of the posterior.

        Args:
            mel_BSTM: Natural-log mel spectrogram ``(B, 2, T, M)``.

        Returns:
            Normalised latent ``(B, C, L, F)``, ``L = ceil(T / downsample)`` where time is causal.
        """
        h = self.conv_in(mel_BSTM)
        for level in self.down:
            h = level(h)
        h = self.conv_out(F.silu(pixel_norm(self.mid(h))))
        mean_BCLF = h[:, : self.config.network.z_channels]
        tokens = rearrange(mean_BCLF, "b c l f -> b l (c f)")
        tokens = self.per_channel_statistics.normalize(tokens)
        return rearrange(tokens, "b l (c f) -> b c l f", f=mean_BCLF.shape[-1])
