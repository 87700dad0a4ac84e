"""Optimiser steps of the tiny model on noise, without a dataset: samples are numbers.

Samples of odd numbers that are divisible by three have no sound.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from rayreel.config.train import TrainSpec
from rayreel.models.transformer import Transformer
from rayreel.training.group import Group
from rayreel.training.order import Position
from rayreel.training.parallel import (
    accumulating,
    clip_gradients,
    parallelise,
    sum_gradients,
)
from rayreel.training.state import TrainState
from rayreel.types import Modality
from tests.training.trained import spec_of, trainable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Run:
    """What takes steps."""

    spec: TrainSpec
    group: Group
    model: Transformer
    state: TrainState

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.spec.acceleration.dtype]


def begin(group: Group, **fields) -> Run:
    """A run of the tiny model; an adapter gets weights that have an effect."""
    fields["acceleration"] = {"dtype": "float32", **fields.get("acceleration", {})}
    spec = spec_of(**fields)
    dtype = DTYPES[spec.acceleration.dtype]
    model = trainable(dtype=dtype, **fields).model
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.02, generator=generator)
    parallelise(model, spec, group, dtype)
    return Run(spec, group, model, TrainState(model, spec.optimization, group))


def gradients(run: Run, samples: list[int]) -> None:
    """Those of a step, each sample in a pass of its own."""
    mine = samples[run.group.rank :: run.group.world]
    for index, sample in enumerate(mine, start=1):
        with accumulating(run.model, last=index == len(mine)):
            (loss(run.model, sample, run.dtype) / len(samples)).backward()
    sum_gradients(run.state.parameters, run.group)


def step(run: Run, samples: list[int]) -> None:
    """One optimiser step."""
    state = run.state
    state.optimizer.zero_grad()
    gradients(run, samples)
    clip_gradients(state.parameters, 1.0, run.group)
    state.optimizer.step()
    if state.ema:
        state.ema.update(state.step)
    state.step += 1
    state.position = Position(1, state.step)
    state.samples += len(samples)


def loss(model: Transformer, sample: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of one sample, in float32."""
    generator = torch.Generator().manual_seed(sample)
    config, text = model.config, model.config.caption_channels
    assert text is not None, "the tiny model projects texts"

    def stream(tokens: int, channels: int, axes: int) -> Modality:
        def draw(*shape: int) -> Tensor:
            return torch.randn(1, *shape, generator=generator).to(dtype)

        starts = torch.arange(tokens).float().expand(1, axes, tokens)
        return Modality(
            latent=draw(tokens, channels),
            sigma=torch.tensor([0.7]),
            timesteps=torch.full((1, 1, 1), 0.7),
            positions=torch.stack((starts, starts + 1), dim=-1),
            context=draw(5, text),
        )

    video = stream(6, config.in_channels, 3)
    audio = stream(4, config.audio_in_channels, 1)
    silent = sample % 6 == 3
    found = model(video, None if silent else audio)
    return torch.stack([v.float().square().mean() for v in found if v is not None]).sum()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split; all processes must call this."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
