"""Arithmetic of a step, counted from shapes, and the machine that it is held against."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rayreel.config.model import TransformerConfig
from rayreel.config.presets import TINY_CONFIG, TINY_CONFIG_2_3
from rayreel.models.transformer import Transformer
from rayreel.training.example import Batch, StreamBatch
from rayreel.training.forward import modalities
from rayreel.training.utilisation import StepFlops, forward_flops, matmul_peak, memory_gib
from rayreel.types import TextContext, TextFeatures

CONFIGS = [TINY_CONFIG, TINY_CONFIG_2_3]
LENGTH = 16

# The counter does not know the CPU's fused attention.
counted_attention = pytest.mark.usefixtures("plain_attention")


@pytest.fixture
def plain_attention() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH):
        yield


def stream(tokens: int, channels: int, axes: int, samples: int) -> StreamBatch:
    noisy = torch.ones(samples, tokens, channels)
    return StreamBatch(
        noisy=noisy,
        target=noisy,
        loss_mask=torch.ones(samples, tokens),
        timesteps=torch.full((samples, tokens), 0.5),
        sigma=torch.full((samples,), 0.5),
        positions=torch.rand(samples, axes, tokens, 2),
    )


def batch_of(config: TransformerConfig, *, samples: int = 1, frames: int = 2) -> Batch:
    text = TextFeatures(video=torch.ones(3, 8), audio=torch.ones(3, 8), length=LENGTH)
    return Batch(
        video=stream(frames * 6, config.in_channels, 3, samples),
        audio=stream(frames * 4, config.audio_in_channels, 1, samples),
        texts=(text,) * samples,
        samples=tuple(range(samples)),
    )


def forward(model: Transformer, batch: Batch) -> Tensor:
    config = model.config
    captions = None if config.caption_proj_before_connector else config.caption_channels
    video, audio = (
        torch.ones(LENGTH, captions or width)
        for width in (config.cross_attention_dim, config.audio_cross_attention_dim)
    )
    contexts = [TextContext(video=video, audio=audio)] * len(batch.samples)
    found = model(*modalities(batch, contexts, torch.float32))
    return torch.cat([one.flatten() for one in found])


@counted_attention
@pytest.mark.parametrize("values", CONFIGS)
def test_forward_pass_counts_as_it_computes(values):
    config = TransformerConfig.model_validate(values["transformer"])
    batch = batch_of(config, samples=2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(Transformer(config), batch)
    assert sum(forward_flops(config, batch)) == counter.get_total_flops()


@counted_attention
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_step_counts_as_forward_and_backward_compute(mode):
    config = TransformerConfig.model_validate(TINY_CONFIG["transformer"])
    model, batch = Transformer(config), batch_of(config, frames=8)
    if mode == "lora":
        model.requires_grad_(False)
        # Stands for an adapter without any weights of its own, at the start of each stream.
        for parameter in (model.patchify_proj.bias, model.audio_patchify_proj.bias):
            parameter.requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        forward(model, batch).sum().backward()
    assert StepFlops(config=config, mode=mode)(batch) == pytest.approx(
        counter.get_total_flops(), rel=0.05
    )


def test_adapter_adds_its_share():
    config = TransformerConfig.model_validate(TINY_CONFIG["transformer"])
    batch = batch_of(config)
    bare, adapted = (
        StepFlops(config=config, mode="lora", adapter_share=share)(batch) for share in (0, 0.1)
    )
    assert adapted - bare == pytest.approx(0.3 * forward_flops(config, batch).linear, abs=1)


def test_shapes_are_told_apart_and_counted_once(monkeypatch):
    config = TransformerConfig.model_validate(TINY_CONFIG["transformer"])
    count = StepFlops(config=config, mode="full")
    short, long = count(batch_of(config)), count(batch_of(config, frames=4))
    monkeypatch.delattr("rayreel.training.utilisation.forward_flops")
    assert short < long
    assert (count(batch_of(config)), count(batch_of(config, frames=4))) == (short, long)


def test_picture_alone_takes_less_than_with_sound():
    config = TransformerConfig.model_validate(TINY_CONFIG["transformer"])
    both = batch_of(config)
    silent = Batch(video=both.video, audio=None, texts=both.texts, samples=both.samples)
    assert sum(forward_flops(config, silent)) < sum(forward_flops(config, both))


def test_machine_is_measured_once_and_in_range():
    device = torch.device("cpu")
    peak = matmul_peak(device, torch.float32)
    assert peak == matmul_peak(device, torch.float32)
    assert 1e8 < peak < 1e15


def test_memory_is_what_the_process_holds():
    assert 0.05 < memory_gib(torch.device("cpu")) < 100
