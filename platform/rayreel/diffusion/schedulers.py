"""Noise levels of a run: float32 ``(steps + 1,)`` on the CPU, falling from 1 to 0."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from rayreel.diffusion.protocols import Scheduler

DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
"""Levels that the distilled weights were trained on."""

STAGE_2_SIGMAS = (0.909375, 0.725, 0.421875, 0.0)
"""Tail of the distilled levels, for refining an upsampled latent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LTX2Scheduler:
    """Levels shifted towards high noise for long sequences, then stretched to a fixed last level.

    Attributes:
        tokens: Video tokens that the shift is computed for. The published pipelines keep the
            default whatever the resolution; only the second-order one passes the real number.
        base_shift: Shift at 1024 tokens.
        max_shift: Shift at 4096 tokens; it grows linearly and is not clamped beyond.
        terminal: Last non-zero level, in (0, 1), or ``None`` to leave the levels unstretched.

    Reference:
        Esser et al. 2024, arXiv:2403.03206, resolution-dependent shifting.
    """

    tokens: int = 4096
    base_shift: float = 0.95
    max_shift: float = 2.05
    terminal: float | None = 0.1

    @property
    def shift(self) -> float:
        """Logarithm of the factor that high noise is favoured by."""
        slope = (self.max_shift - self.base_shift) / (4096 - 1024)
        return self.base_shift + (self.tokens - 1024) * slope

    def sigmas(self, steps: int) -> Tensor:
        """Levels for ``steps`` model evaluations.

        Raises:
            ValueError: If ``steps`` is below 1.
        """
        _check_steps(steps)
        if steps == 1:
            # Stretching divides zero by zero here: the first level is also the last non-zero one.
            return torch.tensor([1.0, 0.0])
        factor = math.exp(self.shift)
        # Float32 in this order, as in Lightricks/LTX-2: for many tokens and few steps the stretch
        # magnifies its rounding to more than 1e-5.
        sigmas = factor / (factor + (1 / torch.linspace(1, 0, steps + 1) - 1))
        if self.terminal is not None:
            scale = (1 - sigmas[-2]) / (1 - self.terminal)
            sigmas[:-1] = 1 - (1 - sigmas[:-1]) / scale
        return sigmas


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearQuadraticScheduler:
    """Equal small moves at high noise, then quadratically growing ones.

    Eight steps give ``DISTILLED_SIGMAS``.

    Attributes:
        threshold: Noise removed by the linear part, in (0, 1).
        linear_steps: Steps of the linear part, or ``None`` for half of all.
    """

    threshold: float = 0.025
    linear_steps: int | None = None

    def sigmas(self, steps: int) -> Tensor:
        """Levels for ``steps`` model evaluations.

        Raises:
            ValueError: If ``steps`` is below 1, or ``linear_steps`` is not in 1 to ``steps``.
        """
        _check_steps(steps)
        if steps == 1:
            return torch.tensor([1.0, 0.0])
        linear = steps // 2 if self.linear_steps is None else self.linear_steps
        if not 1 <= linear <= steps:
            raise ValueError(f"linear_steps={linear} must be in 1 to steps={steps}")
        removed = [i * self.threshold / linear for i in range(linear)]
        if quadratic := steps - linear:
            excess = linear - self.threshold * steps
            a = excess / (linear * quadratic**2)
            b = self.threshold / linear - 2 * excess / quadratic**2
            c = a * linear**2
            removed += [a * i**2 + b * i + c for i in range(linear, steps)]
        return 1 - torch.tensor([*removed, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaScheduler:
    """Quantiles of a beta distribution over a shifted table of levels.

    Attributes:
        alpha: First shape parameter; below 1 it crowds levels at low noise.
        beta: Second shape parameter; below 1 it crowds levels at high noise.
        shift: Logarithm of the factor that high noise is favoured by.
        table_size: Entries of the table.

    Reference:
        Lee et al. 2024, arXiv:2407.12173.
    """

    alpha: float = 0.6
    beta: float = 0.6
    shift: float = 2.37
    table_size: int = 10000

    def sigmas(self, steps: int) -> Tensor:
        """At most ``steps + 1`` levels: quantiles that fall on the same table entry are merged.

        Raises:
            ValueError: If ``steps`` is below 1.
        """
        _check_steps(steps)
        quantiles = 1 - np.arange(steps) / steps
        entries = betaincinv(self.alpha, self.beta, quantiles) * (self.table_size - 1)
        indices = torch.from_numpy(np.rint(entries)).long()
        factor = math.exp(self.shift)
        levels = (torch.unique_consecutive(indices) + 1) / self.table_size
        return torch.cat((factor / (factor + (1 / levels - 1)), torch.zeros(1)))


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "ltx2": LTX2Scheduler,
    "linear_quadratic": LinearQuadraticScheduler,
    "beta": BetaScheduler,
}
"""Schedules with their usual parameters, by the name that a request gives."""


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
