"""How noise levels are drawn for training.

What follows from random numbers is apart from drawing them, so that it can be checked.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rayreel.config.train import TimestepSpec
from rayreel.diffusion.schedulers import LTX2Scheduler

SigmaSampler = Callable[[int, torch.Generator], float]
"""Noise level in [0, 1] for a stream of so many tokens; a float32 number."""

# Deviations of a normal draw at its 0.999 and 0.005 quantiles, which are stretched to 1 and 0.
_HIGH, _LOW = 3.0902, 2.5758


def logit_normal(normal: Tensor, *, tokens: int, std: float = 1.0) -> Tensor:
    """Levels that favour noise the more, the longer the stream is: as of 2.0.

    Args:
        normal: Float32 standard normal draws.
        tokens: Of the stream that is noised.
        std: Deviation of the levels' logits.

    Returns:
        Like ``normal``, in (0, 1).

    Reference:
        Esser et al. 2024, arXiv:2403.03206, logit-normal sampling and its shift by resolution.
    """
    return torch.sigmoid(normal * std + LTX2Scheduler(tokens=tokens).shift)


def stretched_logit_normal(
    normal: Tensor,
    uniform: Tensor,
    choice: Tensor,
    *,
    tokens: int,
    std: float = 1.0,
    uniform_share: float = 0.1,
    eps: float = 1e-3,
) -> Tensor:
    """The same, stretched so that all of [0, 1] is seen, with some uniform ones: as from 2.3 on.

    Args:
        normal: Float32 standard normal draws.
        uniform: Uniform draws in [0, 1) like ``normal``: of the uniform levels.
        choice: The same: which levels are uniform.
        tokens: Of the stream that is noised.
        std: Deviation of the levels' logits.
        uniform_share: Of the levels that are uniform.
        eps: Levels below it are mirrored to above it; the least of the uniform ones.

    Returns:
        Like ``normal``, in [0, 1]; the greatest in a thousand are exactly 1.
    """
    edges = torch.tensor((-_LOW, _HIGH), dtype=normal.dtype, device=normal.device)
    low, high = logit_normal(edges, tokens=tokens, std=std)
    levels = (logit_normal(normal, tokens=tokens, std=std) - low) / (high - low)
    levels = torch.where(levels < eps, 2 * eps - levels, levels).clamp(0, 1)
    return torch.where(choice < uniform_share, (1 - eps) * uniform + eps, levels)


def sigma_sampler(spec: TimestepSpec) -> SigmaSampler:
    """What draws levels as a spec says."""

    def uniform(_: int, generator: torch.Generator) -> float:
        return float(torch.rand((), generator=generator) * (spec.max - spec.min) + spec.min)

    def of_2_0(tokens: int, generator: torch.Generator) -> float:
        return float(
            logit_normal(torch.randn((), generator=generator), tokens=tokens, std=spec.std)
        )

    def stretched(tokens: int, generator: torch.Generator) -> float:
        normal = torch.randn((), generator=generator)
        level, choice = torch.rand(2, generator=generator)
        return float(
            stretched_logit_normal(
                normal,
                level,
                choice,
                tokens=tokens,
                std=spec.std,
                uniform_share=spec.uniform_share,
                eps=spec.eps,
            )
        )

    def one_of(_: int, generator: torch.Generator) -> float:
        choice = int(torch.randint(len(spec.levels), (), generator=generator))
        return float(torch.tensor(spec.levels[choice]))

    if spec.sampler == "levels":
        return one_of
    if spec.sampler == "uniform":
        return uniform
    shifted, length = stretched if spec.stretched else of_2_0, spec.tokens
    return shifted if length is None else lambda _, generator: shifted(length, generator)
