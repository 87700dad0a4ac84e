"""The transformer against diffusers' class with random weights.

Releases differ in the noise level that modulates the exchange between the streams, and diffusers
has older ones; where both streams share one uniform level, or do not exchange, all of them agree.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.models.transformer import Perturbation, PerturbationType, Transformer
from rayreel.runs.bench.oracles import diffusers_transformer, transformer_name
from tests.models.tiny import tiny_config, tiny_streams

CONFIGS = {
    "2.0": tiny_config("2.0"),
    "2.0 interleaved": tiny_config("2.0", rope_type="interleaved", frequencies_precision=False),
    "2.3": tiny_config("2.3"),
    "2.5": tiny_config("2.5"),
    "2.5 static prompt": tiny_config("2.5", use_prompt_adaln_single=False, audio_ff_bias=False),
}


@pytest.fixture(params=CONFIGS)
def pair(request):
    """Both implementations with the same weights."""
    config = CONFIGS[request.param]
    theirs: Any = diffusers_transformer(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.requires_grad_(False).parameters():
        parameter.normal_(std=0.3, generator=generator)
    tensors = {transformer_name(name): tensor for name, tensor in theirs.state_dict().items()}
    return build(lambda: Transformer(config), tensors), theirs


def velocities(theirs, video, audio, **options):
    scale = theirs.config.timestep_scale_multiplier
    return theirs(
        hidden_states=video.latent,
        audio_hidden_states=audio.latent,
        encoder_hidden_states=video.context,
        audio_encoder_hidden_states=audio.context,
        timestep=video.timesteps[..., 0] * scale,
        audio_timestep=audio.timesteps[..., 0] * scale,
        sigma=video.sigma * scale,
        audio_sigma=audio.sigma * scale,
        encoder_attention_mask=video.context_mask,
        audio_encoder_attention_mask=audio.context_mask,
        video_coords=video.positions,
        audio_coords=audio.positions,
        video_keyframes_mask=video.keyframes_mask,
        return_dict=False,
        **options,
    )


def test_one_noise_level(pair):
    ours, theirs = pair
    streams = tiny_streams(ours.config)
    torch.testing.assert_close(ours(*streams), velocities(theirs, *streams), rtol=1e-4, atol=2e-5)


def test_masked_text(pair):
    ours, theirs = pair
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1]])
    streams = [replace(stream, context_mask=mask) for stream in tiny_streams(ours.config)]
    torch.testing.assert_close(ours(*streams), velocities(theirs, *streams), rtol=1e-4, atol=2e-5)


def test_isolated_streams_with_a_noise_level_per_token(pair):
    ours, theirs = pair
    levels = torch.linspace(0, 1, 6)[:, None], torch.linspace(1, 0, 4)[:, None]
    streams = [
        replace(stream, timesteps=stream.timesteps * level)
        for stream, level in zip(tiny_streams(ours.config), levels, strict=True)
    ]
    skipped = [
        Perturbation(PerturbationType.SKIP_A2V_CROSS_ATTN),
        Perturbation(PerturbationType.SKIP_V2A_CROSS_ATTN),
    ]
    expected = velocities(theirs, *streams, isolate_modalities=True)
    torch.testing.assert_close(ours(*streams, [skipped] * 2), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kept", [[0.0, 1.0], [0.0, 0.0]])
def test_skipped_self_attention(pair, kept):
    ours, theirs = pair
    streams = tiny_streams(ours.config)
    skipped = [
        Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (1,)),
        Perturbation(PerturbationType.SKIP_AUDIO_SELF_ATTN, (1,)),
    ]
    expected = velocities(
        theirs,
        *streams,
        spatio_temporal_guidance_blocks=[1],
        perturbation_mask=torch.tensor(kept),
    )
    actual = ours(*streams, [[] if keep else skipped for keep in kept])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)
