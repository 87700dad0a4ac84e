"""Self-attention within each frame of the video VAE.

Letters: B batch (of frames), C channels, F frames, H height, W width, T positions of a frame.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from rayreel.models.attention import scaled_dot_product


class ChannelNorm(nn.Module):
    """Scales each position's channels to root mean square 1, then by a learned factor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return F.normalize(x, dim=1) * x.shape[1] ** 0.5 * self.gamma


class FrameAttention(nn.Module):
    """Residual attention with one head over the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, H, W)`` to the same shape."""
        batch, _, _, height, _ = x.shape
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        qkv = rearrange(self.to_qkv(self.norm(frames)), "b (k c) h w -> k b (h w) 1 c", k=3)
        q_BT1C, k_BT1C, v_BT1C = qkv.unbind(0)
        attended = scaled_dot_product(q_BT1C, k_BT1C, v_BT1C, mask=None)
        out = self.proj(rearrange(attended, "b (h w) 1 c -> b c h w", h=height))
        return x + rearrange(out, "(b f) c h w -> b c f h w", b=batch)
