"""Estimates of memory against the bytes that live tensors hold while the networks run."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VocoderConfig,
)
from rayreel.models import attention
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
from rayreel.models.transformer import text as text_attention
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.vocoder import decode_audio, make_vocoder
from rayreel.types import Modality, VideoLatentShape
from tests.memory_tracker import MemoryTracker
from tests.models.tiny import GENERATIONS, tiny_config
from tests.official import OFFICIAL

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


def stream(batch, tokens, text, *, axes, per_token, like):
    """One stream of zeros, in the dtype and on the device of ``like``."""
    given = {"device": like.device}
    return Modality(
        latent=like.new_zeros(batch, tokens, 4),
        sigma=torch.ones(batch, **given),
        timesteps=torch.ones(batch, tokens if per_token else 1, 1, **given),
        positions=torch.zeros(batch, axes, tokens, 2, **given),
        context=like.new_zeros(batch, *text),
    )


def streams(config, batch, tokens, text_tokens, *, per_token, like):
    """Both streams, or ``None`` in place of one without tokens."""
    widths = (config.video_width, config.audio_width)
    if not config.caption_proj_before_connector:
        widths = (config.caption_channels,) * 2
    return [
        stream(batch, n, (text_tokens, width), axes=axes, per_token=per_token, like=like)
        if n
        else None
        for n, width, axes in zip(tokens, widths, (3, 1), strict=True)
    ]


@pytest.fixture
def fused_norms(monkeypatch):
    """Norms store their result alone, as on CUDA; other devices compose them of several steps."""
    monkeypatch.setattr(F, "rms_norm", lambda x, *_args, **_named: torch.zeros_like(x))


def transformer_config(generation, head_dim):
    return tiny_config(
        generation,
        num_attention_heads=4,
        attention_head_dim=head_dim,
        cross_attention_dim=4 * head_dim,
        audio_num_attention_heads=4,
        audio_attention_head_dim=head_dim // 2,
        audio_cross_attention_dim=2 * head_dim,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("tokens", [(1024, 32), (256, 512), (512, 0), (0, 512)])
@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.usefixtures("fused_norms")
def test_transformer(generation, dtype, tokens, per_token):
    config, text_tokens, batch = transformer_config(generation, 32), 64, 2
    model = on(lambda: Transformer(config), dtype)
    like = torch.zeros(0, dtype=dtype)
    inputs = streams(config, batch, tokens, text_tokens, per_token=per_token, like=like)
    estimate = transformer_bytes(
        config,
        batch=batch,
        video_tokens=tokens[0],
        audio_tokens=tokens[1],
        text_tokens=text_tokens,
        itemsize=dtype.itemsize,
        per_token=per_token,
    )
    skipped = [[], [Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (1,))]]
    check(estimate, peak(lambda: model(*inputs)))
    check(estimate, peak(lambda: model(*inputs, skipped)))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("noise", ["of samples", "of tokens", "of few levels"])
@pytest.mark.usefixtures("fused_norms")
def test_transformer_of_published_size(generation, noise, monkeypatch):
    # On the meta device the kernel would store the scores.
    for module in (attention, text_attention):
        monkeypatch.setattr(module, "scaled_dot_product", lambda q, *_: torch.empty_like(q))
    small = {"num_layers": 2, "in_channels": 4, "audio_in_channels": 4}
    config = TransformerConfig.model_validate(OFFICIAL[generation]["transformer"] | small)
    model = on(lambda: Transformer(config), torch.bfloat16, "meta")
    like = torch.zeros(0, dtype=torch.bfloat16, device="meta")
    inputs = streams(config, 4, (6144, 126), 1024, per_token=noise != "of samples", like=like)
    if noise == "of few levels":
        inputs = [replace(stream, levels=like.new_zeros(2).float()) for stream in inputs]
    estimate = transformer_bytes(
        config,
        batch=4,
        video_tokens=6144,
        audio_tokens=126,
        text_tokens=1024,
        itemsize=2,
        per_token=noise == "of tokens",
    )
    skipped = [[], [], [], [Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, (1,))]]
    check(estimate, peak(lambda: model(*inputs, skipped)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("generation", GENERATIONS)
def test_transformer_on_cuda(generation):
    config, like = transformer_config(generation, 128), torch.zeros(0, device="cuda").bfloat16()
    model = on(lambda: Transformer(config), torch.bfloat16, "cuda")
    inputs = streams(config, 4, (6144, 126), 1024, per_token=True, like=like)
    before = torch.cuda.memory_allocated()
    with torch.inference_mode():
        model(*inputs)
        torch.cuda.reset_peak_memory_stats()
        model(*inputs)
    estimate = transformer_bytes(
        config,
        batch=4,
        video_tokens=6144,
        audio_tokens=126,
        text_tokens=1024,
        itemsize=2,
        per_token=True,
    )
    check(estimate, torch.cuda.max_memory_allocated() - before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_text_encoder(generation, dtype):
    layers, width, prompts, tokens = 24, 64, 2, 128
    values = copy.deepcopy(tiny.CONFIG)
    values["text_config"] |= {"num_hidden_layers": layers, "hidden_size": width}
    gemma = on(lambda: make_gemma(parse_config(values)), dtype)
    small = {
        "connector_num_attention_heads": 2,
        "connector_attention_head_dim": 16,
        "audio_connector_num_attention_heads": 2,
        "audio_connector_attention_head_dim": 16,
    }
    config = TextConfig.model_validate(OFFICIAL[generation]["transformer"] | small)
    shape = {"hidden_size": width, "num_hidden_states": layers + 1}
    processor = on(lambda: EmbeddingsProcessor(config, **shape), dtype)
    ids = torch.full((prompts, tokens), 100)
    mask = torch.ones_like(ids)
    estimate = text_encoder_bytes(
        config, **shape, prompts=prompts, text_tokens=tokens, itemsize=dtype.itemsize
    )
    check(estimate, peak(lambda: processor(gemma(ids, mask), mask)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generation", ["2.0", "2.3"])
@pytest.mark.parametrize("latent_frames", [25, 251])
def test_audio_of_published_size(generation, dtype, latent_frames):
    audio = AudioVAEConfig.model_validate(OFFICIAL[generation]["audio_vae"])
    config = VocoderConfig.model_validate(OFFICIAL[generation]["vocoder"])
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
