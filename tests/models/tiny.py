"""Transformers small enough for a test, one per generation."""

from typing import Any

import torch

from rayreel.config.model import TransformerConfig
from rayreel.models.transformer import Transformer
from rayreel.types import Modality
from tests.official import OFFICIAL

GENERATIONS = tuple(OFFICIAL)
# What a file of a video-only network does not state.
AUDIO_VIDEO = {
    "use_audio_video_cross_attention": True,
    "share_ff": False,
    "av_cross_ada_norm": True,
}
SIGMA = 0.725


def tiny_config(generation: str, **overrides: Any) -> TransformerConfig:
    """Two blocks, two heads; video width 16, audio width 8, four channels each."""
    sizes = {
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 4,
        "cross_attention_dim": 16,
        "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 4,
        "audio_in_channels": 4,
        "audio_out_channels": 4,
        "audio_cross_attention_dim": 8,
        "caption_channels": 6,
    }
    official = OFFICIAL[generation]["transformer"]
    return TransformerConfig.model_validate(official | sizes | overrides)


def video_only(config: TransformerConfig) -> TransformerConfig:
    """The same network without audio, as a video-only file would state it."""
    stated = config.model_dump(exclude={"streams", *AUDIO_VIDEO})
    return TransformerConfig.model_validate(stated)


@torch.no_grad()
def sine_transformer(config: TransformerConfig) -> Transformer:
    """Weights from a formula: parameter j by name and its element n give a sine."""
    model = Transformer(config)
    for rank, (name, parameter) in enumerate(sorted(model.named_parameters())):
        element = torch.arange(parameter.numel(), dtype=torch.float64)
        weight = 0.3 * torch.sin(0.7 * element + 1.3 * rank + 0.1)
        offset = 1 if name.endswith(("q_norm.weight", "k_norm.weight")) else 0
        parameter.copy_(offset + weight.view(parameter.shape))
    return model.requires_grad_(False).eval()


def tiny_streams(config: TransformerConfig) -> tuple[Modality, Modality]:
    """Two samples at one noise level: 3 x 1 x 2 video tokens at 24 fps, 4 of audio, 5 of text."""

    def waves(tokens: int, channels: int, per_token: float, per_channel: float) -> torch.Tensor:
        sample, token, channel = (torch.arange(n).float() for n in (2, tokens, channels))
        return sample[:, None, None] + per_token * token[:, None] + per_channel * channel

    def edges(*values: float) -> torch.Tensor:
        return torch.tensor(values).unfold(0, 2, 1)

    times = edges(0, 1 / 24, 9 / 24, 17 / 24).repeat_interleave(2, dim=0)
    rows, columns = edges(0, 32).expand(6, 2), edges(0, 32, 64).repeat(3, 1)
    text, audio_text = config.cross_attention_dim, config.audio_cross_attention_dim
    if not config.caption_proj_before_connector:
        assert config.caption_channels is not None
        text = audio_text = config.caption_channels
    video = Modality(
        latent=waves(6, 4, 0.5, 0.3).sin(),
        sigma=torch.full((2,), SIGMA),
        timesteps=torch.full((2, 6, 1), SIGMA),
        positions=torch.stack((times, rows, columns)).expand(2, -1, -1, -1),
        context=waves(5, text, 0.9, 0.11).sin(),
        keyframes_mask=(torch.arange(6) < 2).float().view(1, 6, 1).expand(2, -1, -1),
    )
    audio = Modality(
        latent=waves(4, 4, 0.4, 0.2).cos(),
        sigma=torch.full((2,), SIGMA),
        timesteps=torch.full((2, 4, 1), SIGMA),
        positions=edges(0, 0.01, 0.05, 0.09, 0.13).expand(2, 1, -1, -1),
        context=waves(5, audio_text, 0.8, 0.13).cos(),
    )
    return video, audio
