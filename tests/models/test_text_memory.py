"""What the transformer keeps of the text from step to step."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from rayreel.models.transformer import TextMemory
from tests.models.tiny import sine_transformer, tiny_config, tiny_streams

CONFIGS = {
    "2.0": tiny_config("2.0"),
    "2.3": tiny_config("2.3"),
    "2.5": tiny_config("2.5"),
    "2.5 static prompt": tiny_config("2.5", use_prompt_adaln_single=False),
}


def at(streams, level):
    """The streams at another noise level, with other tokens."""
    return [
        replace(
            stream,
            latent=stream.latent * (1 + level),
            sigma=stream.sigma * level,
            timesteps=stream.timesteps * level,
        )
        for stream in streams
    ]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.inference_mode()
def test_steps_are_the_same_with_a_memory_to_the_bit(config):
    model, memory = sine_transformer(config), TextMemory()
    for level in (1.0, 0.6, 0.3):
        streams = at(tiny_streams(config), level)
        for ours, plain in zip(model(*streams, None, memory), model(*streams), strict=True):
            assert torch.equal(ours, plain)


@pytest.mark.parametrize("mask", [None, torch.tensor([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1]])])
@torch.inference_mode()
def test_masks_and_absent_streams_do_not_matter(mask):
    config = CONFIGS["2.5 static prompt"]
    model, memory = sine_transformer(config), TextMemory()
    for level in (1.0, 0.5):
        video, _ = at([replace(s, context_mask=mask) for s in tiny_streams(config)], level)
        assert torch.equal(model(video, None, None, memory)[0], model(video, None)[0])


@pytest.mark.parametrize(
    ("name", "made"),
    [("2.0", 1), ("2.5 static prompt", 1), ("2.3", 3), ("2.5", 3)],
)
@torch.inference_mode()
def test_text_is_projected_once_unless_the_noise_level_modulates_it(name, made):
    model, memory = sine_transformer(CONFIGS[name]), TextMemory()
    calls: list[Any] = []
    for part in ("transformer_blocks.0.attn2.to_k", "transformer_blocks.1.audio_attn2.to_k"):
        model.get_submodule(part).register_forward_hook(lambda *seen: calls.append(seen[0]))
    for level in (1.0, 0.6, 0.3):
        model(*at(tiny_streams(CONFIGS[name]), level), None, memory)
    assert len(calls) == 2 * made


def test_what_is_kept_has_a_limit():
    memory, made = TextMemory(most_bytes=12), []

    def make(size):
        made.append(size)
        return (torch.zeros(size),)

    for _ in range(2):
        for block, size in enumerate((2, 2, 1)):
            (tensor,) = memory.recall(("video", block), partial(make, size))
            assert len(tensor) == size
    assert made == [2, 2, 1, 2]
