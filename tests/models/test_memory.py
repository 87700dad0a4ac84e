"""Estimates of memory against the bytes that live tensors hold while the networks run."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from rayreel.config.model import TextConfig, UpsamplerConfig, VocoderConfig
from rayreel.models.audio_vae import AudioDecoder
from rayreel.models.memory import (
    audio_decoder_bytes,
    text_encoder_bytes,
    transformer_bytes,
    upsampler_bytes,
)
from rayreel.models.text import tiny
from rayreel.models.text.language_models import make_gemma, parse_config
from rayreel.models.text.processor import EmbeddingsProcessor
from rayreel.models.transformer import Perturbation, PerturbationType, Transformer
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.vocoder import decode_audio, make_vocoder
from rayreel.types import Modality, VideoLatentShape
from tests.memory_tracker import MemoryTracker
from tests.models.test_audio import audio_config, nested_config
from tests.models.tiny import GENERATIONS, tiny_config

DTYPES = [torch.float32, torch.bfloat16]


def peak(run: Callable[[], object]) -> int:
    """Most bytes alive at once during a call."""
    tracker = MemoryTracker()
    with torch.no_grad(), tracker:
        run()
    return tracker.peak


def on(make, dtype, device="cpu"):
    with torch.device(device):
        return make().requires_grad_(False).eval().to(dtype)


def check(estimate: int, measured: int) -> None:
    """Not much too low, which would end in an error, and not too high, which would waste memory."""
    assert 0.85 * measured < estimate < 1.3 * measured


def stream(batch, tokens, channels, text, *, axes, dtype):
    return Modality(
        latent=torch.zeros(batch, tokens, channels, dtype=dtype),
        sigma=torch.ones(batch),
        timesteps=torch.ones(batch, tokens, 1),
        positions=torch.zeros(batch, axes, tokens, 2),
        context=torch.zeros(batch, *text, dtype=dtype),
    )


def transformer(generation, dtype):
    sizes = {
        "num_attention_heads": 4,
        "attention_head_dim": 32,
        "cross_attention_dim": 128,
        "audio_num_attention_heads": 4,
        "audio_attention_head_dim": 16,
        "audio_cross_attention_dim": 64,
    }
    config = tiny_config(generation, **sizes)
    return config, on(lambda: Transformer(config), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    ("video_tokens", "audio_tokens"), [(1024, 32), (256, 512), (512, 0), (0, 512)]
)
def test_transformer(generation, dtype, video_tokens, audio_tokens):
    config, model = transformer(generation, dtype)
    text, batch = 64, 2
    widths = (config.video_width, config.audio_width)
    if not config.caption_proj_before_connector:
        widths = (config.caption_channels,) * 2
    video, audio = (
        stream(batch, tokens, 4, (text, width), axes=axes, dtype=dtype) if tokens else None
        for tokens, width, axes in zip((video_tokens, audio_tokens), widths, (3, 1), strict=True)
    )
    estimate = transformer_bytes(
        config,
        batch=batch,
        video_tokens=video_tokens,
        audio_tokens=audio_tokens,
        text_tokens=text,
        itemsize=dtype.itemsize,
    )
    skipped = [[], [Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (1,))]]
    check(estimate, peak(lambda: model(video, audio)))
    check(estimate, peak(lambda: model(video, audio, skipped)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_text_encoder(version, dtype):
    layers, width, prompts, tokens = 24, 64, 2, 128
    values = copy.deepcopy(tiny.CONFIG)
    values["text_config"] |= {"num_hidden_layers": layers, "hidden_size": width}
    gemma = on(lambda: make_gemma(parse_config(values)), dtype)
    keys = dict.fromkeys(
        (
            "caption_projection_first_linear",
            "caption_proj_input_norm",
            "caption_projection_second_linear",
        ),
        False,
    )
    config = TextConfig.model_validate(
        {"connector_num_attention_heads": 2, "connector_attention_head_dim": 16}
        | (keys | {"caption_proj_before_connector": True} if version == "v2" else {})
    )
    shape = {"hidden_size": width, "num_hidden_states": layers + 1}
    processor = on(lambda: EmbeddingsProcessor(config, **shape), dtype)
    ids = torch.full((prompts, tokens), 100)
    mask = torch.ones_like(ids)
    estimate = text_encoder_bytes(
        config, **shape, prompts=prompts, text_tokens=tokens, itemsize=dtype.itemsize
    )
    check(estimate, peak(lambda: processor(gemma(ids, mask), mask)))


VOCODERS = {"2.0": VocoderConfig.model_validate({}), "2.3": nested_config(1536, 512)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generation", VOCODERS)
@pytest.mark.parametrize("latent_frames", [25, 251])
def test_audio_of_published_size(generation, dtype, latent_frames):
    audio, config = audio_config(), VOCODERS[generation]
    decoder = on(lambda: AudioDecoder(audio), dtype, "meta")
    vocoder = on(lambda: make_vocoder(config), dtype, "meta")
    latent = torch.zeros(1, 8, latent_frames, 16, device="meta")
    estimate = audio_decoder_bytes(
        audio, config, latent_frames=latent_frames, itemsize=dtype.itemsize
    )
    check(estimate, peak(lambda: decode_audio(decoder, vocoder, latent)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temporal_upsample": True},
        {"temporal_upsample": True, "spatial_upsample": False},
        *({"rational_resampler": True, "spatial_scale": s} for s in (0.75, 1.5, 2.0, 4.0)),
    ],
    ids=str,
)
def test_upsampler_of_published_size(values, dtype):
    config = UpsamplerConfig.model_validate(values)
    model = on(lambda: LatentUpsampler(config), dtype, "meta")
    shape = VideoLatentShape(batch=1, channels=128, frames=16, height=8, width=12)
    latent = torch.zeros(shape.to_tuple(), device="meta")
    estimate = upsampler_bytes(config, shape, itemsize=dtype.itemsize)
    check(estimate, peak(lambda: model(latent)))


def test_the_tracker_counts_storages_once_and_until_they_are_freed():
    layer, x = nn.Linear(8, 16), torch.zeros(4, 8)
    with torch.no_grad(), MemoryTracker() as tracker:
        y = layer(x)
        view = y.view(-1)[5:].add_(1)
        assert tracker.live == tracker.peak == 4 * 16 * 4
        del y
        assert tracker.live == 4 * 16 * 4
        view = view.double()
        assert tracker.live == view.nbytes
        assert tracker.peak == 4 * 16 * 4 + view.nbytes
        assert "_to_copy" in tracker.peak_operator
        del view
    assert tracker.live == 0
