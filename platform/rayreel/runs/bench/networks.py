"""Our networks against diffusers' with the same random weights: same results, whose time?"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rayreel.checkpoints.builder import build
from rayreel.config.model import TransformerConfig, VideoVAEConfig, VocoderConfig
from rayreel.config.presets import TINY_CONFIG
from rayreel.diffusion.patchifiers import audio_positions, video_positions
from rayreel.models.transformer import Transformer
from rayreel.models.video_vae import VideoDecoder
from rayreel.models.vocoder import make_vocoder
from rayreel.runs.bench.oracles import (
    diffusers_transformer,
    diffusers_video_decoder,
    diffusers_vocoder,
    transformer_name,
    video_vae_name,
    vocoder_name,
)
from rayreel.runs.bench.spec import TransformerCase, VideoDecoderCase, VocoderCase
from rayreel.runs.bench.timing import difference, race
from rayreel.types import AudioLatentShape, Modality, ScaleFactors, VideoLatentShape

M = TypeVar("M", bound=nn.Module)
Line = dict[str, Any]

_HEADS = 8
_CHANNELS = 128
_MEL_BINS = 64

_RESIDUAL = ["compress_all", {"multiplier": 2, "residual": True}]
_DECODERS: dict[str, dict[str, Any]] = {
    "2.0": {"decoder_blocks": [["res_x", 5], *([_RESIDUAL, ["res_x", 5]] * 3)]},
    "2.3": {
        "spatial_padding_mode": "zeros",
        "decoder_blocks": [
            ["res_x", 4],
            ["compress_space", {"multiplier": 2}],
            ["res_x", 6],
            ["compress_time", {"multiplier": 2}],
            ["res_x", 4],
            ["compress_all", {"multiplier": 1}],
            ["res_x", 2],
            ["compress_all", {"multiplier": 2}],
            ["res_x", 2],
        ],
    },
}
_AMP: dict[str, Any] = {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}


def transformer_config(width: int, layers: int) -> TransformerConfig:
    """The 2.0 architecture at another size."""
    head = width // _HEADS
    sizes = {
        "num_layers": layers,
        "num_attention_heads": _HEADS,
        "attention_head_dim": head,
        "audio_num_attention_heads": _HEADS,
        "audio_attention_head_dim": head // 2,
        "in_channels": _CHANNELS,
        "out_channels": _CHANNELS,
        "audio_in_channels": _CHANNELS,
        "audio_out_channels": _CHANNELS,
        "cross_attention_dim": width,
        "audio_cross_attention_dim": width // 2,
        "caption_channels": width,
    }
    return TransformerConfig.model_validate(TINY_CONFIG["transformer"] | sizes)


def video_vae_config(generation: str, base_channels: int) -> VideoVAEConfig:
    """A published decoder at another width."""
    sizes = {"decoder_base_channels": base_channels, "timestep_conditioning": False}
    return VideoVAEConfig.model_validate(_DECODERS[generation] | sizes)


def vocoder_config(generation: str, channels: int) -> VocoderConfig:
    """A published vocoder at another width."""
    first = {"upsample_initial_channel": channels}
    if generation == "2.0":
        return VocoderConfig.model_validate(first)
    first = _AMP | first | {"upsample_rates": [5, 2, 2, 2, 2, 2]}
    second = _AMP | {
        "upsample_initial_channel": channels // 3,
        "upsample_kernel_sizes": [12, 11, 4, 4, 4],
        "output_sampling_rate": 48000,
    }
    kernels = {"upsample_kernel_sizes": [11, 4, 4, 4, 4, 4]}
    return VocoderConfig.model_validate({"vocoder": first | kernels, "bwe": second})


def compare_transformers(case: TransformerCase, seconds: float) -> Line:
    """A forward pass of both streams at one noise level."""
    config = transformer_config(case.width, case.layers)
    theirs = diffusers_transformer(config)
    ours = _with_weights_of(theirs, lambda: Transformer(config), transformer_name)
    video, audio = _streams(case, config)

    def call() -> Any:  # noqa: ANN401 - calling a module returns Any
        return theirs(
            hidden_states=video.latent,
            audio_hidden_states=audio.latent,
            encoder_hidden_states=video.context,
            audio_encoder_hidden_states=audio.context,
            timestep=video.timesteps[..., 0] * 1000,
            audio_timestep=audio.timesteps[..., 0] * 1000,
            sigma=video.sigma * 1000,
            audio_sigma=audio.sigma * 1000,
            video_coords=video.positions,
            audio_coords=audio.positions,
            return_dict=False,
        )

    found = max(difference(o, t) for o, t in zip(ours(video, audio), call(), strict=True))
    result = race(lambda: ours(video, audio), call, seconds)
    return {"difference": found, **result.line("diffusers")}


def compare_video_decoders(case: VideoDecoderCase, seconds: float) -> Line:
    """Decoding of a latent; theirs is spared the statistics."""
    config = video_vae_config(case.generation, case.base_channels)
    theirs = diffusers_video_decoder(config)
    neutral = {
        "per_channel_statistics.mean-of-means": torch.zeros(config.latent_channels),
        "per_channel_statistics.std-of-means": torch.ones(config.latent_channels),
    }
    ours = _with_weights_of(
        theirs,
        lambda: VideoDecoder(config),
        lambda name: video_vae_name(f"decoder.{name}"),
        neutral,
    )
    latent = torch.randn(1, config.latent_channels, case.frames, case.height, case.width)
    found = difference(ours(latent), theirs(latent))
    result = race(lambda: ours(latent), lambda: theirs(latent), seconds)
    return {"difference": found, **result.line("diffusers")}


def compare_vocoders(case: VocoderCase, seconds: float) -> Line:
    """A waveform from a mel spectrogram."""
    config = vocoder_config(case.generation, case.channels)
    theirs = diffusers_vocoder(config)
    for name, buffer in theirs.named_buffers():
        if name.endswith(("mel_basis", "forward_basis")):
            buffer.uniform_(0, 0.05)
    ours = _with_weights_of(theirs, lambda: make_vocoder(config), vocoder_name)
    mel = torch.randn(1, 2, case.frames, _MEL_BINS)
    found = difference(ours(mel), theirs(mel))
    result = race(lambda: ours(mel), lambda: theirs(mel), seconds)
    return {"difference": found, **result.line("diffusers")}


def _with_weights_of(
    theirs: nn.Module,
    make: Callable[[], M],
    rename: Callable[[str], str],
    extra: dict[str, Tensor] | None = None,
) -> M:
    """Our network on the very memory of their weights, so that both fit beside each other."""
    theirs.requires_grad_(False)
    tensors = {rename(name): tensor for name, tensor in theirs.state_dict().items()}
    return build(make, tensors | (extra or {}), source="diffusers")


def _streams(case: TransformerCase, config: TransformerConfig) -> tuple[Modality, Modality]:
    shape = VideoLatentShape(batch=1, channels=_CHANNELS, frames=case.frames, height=6, width=8)
    audio_shape = AudioLatentShape(batch=1, channels=8, frames=case.audio_tokens, bins=16)
    positions = (
        video_positions(shape, fps=24, factors=ScaleFactors()),
        audio_positions(audio_shape),
    )
    video, audio = (
        Modality(
            latent=torch.randn(1, at.shape[2], _CHANNELS),
            sigma=torch.full((1,), 0.7),
            timesteps=torch.full((1, at.shape[2], 1), 0.7),
            positions=at,
            context=torch.randn(1, case.text_tokens, config.caption_channels or 0),
        )
        for at in positions
    )
    return video, audio
