"""Decoder of the audio VAE.

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
    Level,
    Middle,
    Upsample,
    pixel_norm,
)
from rayreel.models.statistics import PerChannelStatistics


class UpLevel(Level):
    """Residual blocks of one resolution, then an upsampling unless it is the highest."""

    def __init__(
        self, in_channels: int, out_channels: int, level: int, config: AudioNetworkConfig
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            level=level,
            num_blocks=config.num_res_blocks + 1,
            config=config,
        )
        highest = level == 0
        self.upsample = nn.Identity() if highest else Upsample(out_channels, config.causality_axis)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to twice the height and width."""
        return self.upsample(super().forward(x))


class AudioDecoder(nn.Module):
    """Normalised latent to log-mel spectrogram."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        self.config = config
        net = config.network
        widths = [net.ch * multiplier for multiplier in net.ch_mult]
        self.conv_in = CausalConv2d(net.z_channels, widths[-1], 3, net.causality_axis)
        self.mid = Middle(widths[-1], net)
        # Stored from the highest resolution to the lowest, applied the other way round.
        self.up = nn.ModuleList(
            UpLevel(before, after, level, net)
            for level, (after, before) in enumerate(pairwise([*widths, widths[-1]]))
        )
        self.conv_out = CausalConv2d(widths[0], net.out_ch, 3, net.causality_axis)
        self.per_channel_statistics = PerChannelStatistics(net.ch, axis=-1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which inputs must have."""
        return self.conv_in.conv.weight.dtype

    def forward(self, latent_BCLF: Tensor) -> Tensor:
        """Decode.

        Args:
            latent_BCLF: Normalised latent ``(B, C, L, F)``.

        Returns:
            Natural-log mel spectrogram ``(B, 2, T, M)`` with ``T = downsample * (L - 1) + 1``, or
            ``downsample * L`` where no axis is causal.
        """
        tokens = rearrange(latent_BCLF, "b c l f -> b l (c f)")
        tokens = self.per_channel_statistics.un_normalize(tokens)
        h = self.conv_in(rearrange(tokens, "b l (c f) -> b c l f", f=latent_BCLF.shape[-1]))
        h = self.mid(h)
        for level in reversed(self.up):
            h = level(h)
        return self._fit(self.conv_out(F.silu(pixel_norm(h))), latent_BCLF.shape[2])

    def _fit(self, mel_BSTM: Tensor, latent_frames: int) -> Tensor:
        """Cut or zero-pad at the end: causal bins come out short, frames beside them too long."""
        factor = self.config.downsample
        causal = self.config.network.causality_axis != "none"
        frames = factor * latent_frames - (factor - 1 if causal else 0)
        missing_frames = frames - mel_BSTM.shape[2]
        missing_bins = self.config.mel_bins - mel_BSTM.shape[3]
        return F.pad(mel_BSTM, (0, missing_bins, 0, missing_frames))
