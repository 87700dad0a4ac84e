"""Samples in memory, and examples that a strategy makes of them."""

from collections.abc import Sequence
from typing import Any

import torch

from rayreel.config.strategies import Flexible
from rayreel.config.train import TimestepSpec
from rayreel.data.columns import SampleInfo, TrainingSample
from rayreel.training.example import Batch, Draws, stacked
from rayreel.training.geometry import Geometry
from rayreel.training.streams import ExampleMaker
from rayreel.training.timesteps import sigma_sampler
from rayreel.types import TextFeatures

SIZE = (3, 2, 4)
"""Latent frames, height and width of a clip."""
ROW, FRAME, TOKENS = 4, 8, 24
CHANNELS = 5
STEPS = 6
"""Latents of a clip's sound."""


def normal(seed, *size):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def sample(size=SIZE, *, seed=0, fps=24.0, **tensors):
    """A clip with sound and text; other tensors by name."""
    text = normal(seed + 2, 3, 8)
    return TrainingSample(
        info=SampleInfo(sample_id="a", row=1, name="a", source="a", content="a", fps=fps),
        text=TextFeatures(video=text, audio=text, length=128),
        **{
            "video_latents": normal(seed, CHANNELS, *size).bfloat16(),
            "audio_latents": normal(seed + 1, 2, STEPS, 3),
        }
        | tensors,
    )


def maker(strategy, *, reference_scales=(1, 1), **timesteps):
    """Makes examples as a strategy and a spec of time steps say."""
    return ExampleMaker(
        strategy.streams(),
        Geometry(),
        sigma_sampler(TimestepSpec(**timesteps)),
        reference_scales=reference_scales,
    )


def example(strategy, clip=None, draws=None, **options):
    """One clip as one example."""
    draws = draws or Draws(seed=0, epoch=0, step=0, sample=0)
    return maker(strategy, **options)(clip or sample(), draws)


def together(examples: Sequence[Batch]) -> Any:
    """Examples as one batch, whose streams are known to be there."""
    return stacked(examples)


def flexible(video=None, audio=None):
    """A strategy of conditions: ``None`` leaves a stream out, and ``[]`` shows nothing of it."""

    def stream(conditions):
        return None if conditions is None else {"conditions": conditions}

    return Flexible.model_validate({"video": stream(video), "audio": stream(audio)})


def video_tokens(latents):
    """``(C, F, H, W)`` as float32 tokens ``(1, T, C)``."""
    return latents.float().flatten(1).T[None]


def audio_tokens(latents):
    """``(C, T, D)`` as tokens ``(1, T, C * D)``."""
    return latents.transpose(0, 1).flatten(1)[None]
