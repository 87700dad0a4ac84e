"""The roles of the sampler. Letters: B batch, T tokens, D width.

Flow convention everywhere: ``x = (1 - sigma) * x0 + sigma * noise`` and ``velocity = noise - x0``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rayreel.diffusion.streams import Pair
from rayreel.types import LatentState

Noise = Callable[[Tensor], Tensor]
"""Draws the next noise for tokens ``(B, T, D)``: standard normal, the same shape and device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoised:
    """Estimate of one clean stream.

    Attributes:
        x0: The estimate that the step follows, ``(B, T, D)``.
        uncond: Estimate for the negative prompt, or ``None`` where that pass did not run.
    """

    x0: Tensor
    uncond: Tensor | None = None


class Scheduler(Protocol):
    """Chooses the noise levels of a run."""

    def sigmas(self, steps: int) -> Tensor:
        """Float32 ``(steps + 1,)`` on the CPU, falling from 1 to 0."""


class Stepper(Protocol):
    """Moves one stream of one run from a noise level to the next; it may remember earlier steps."""

    @property
    def adds_noise(self) -> bool:
        """Whether steps add noise, so that kept content has to be restored after them."""

    def step(self, sample: Tensor, denoised: Denoised, sigma: float, sigma_next: float) -> Tensor:
        """Tokens at ``sigma_next``, in the shape and dtype of ``sample``."""


class Guider(Protocol):
    """Turns two predictions into a push for the first one."""

    @property
    def enabled(self) -> bool:
        """Whether the second prediction is needed at all."""

    def rescaled(self, scale: float) -> "Guider":
        """The same guider, with what it remembers, at another scale."""

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """What to add to ``cond``, ``(B, T, D)``; each batch item on its own."""


class Denoiser(Protocol):
    """Estimates the clean streams: a model with its contexts and its guidance."""

    def __call__(
        self,
        video: LatentState | None,
        audio: LatentState | None,
        sigma: float,
        step_index: int,
    ) -> Pair[Denoised]:
        """Estimates for the streams that are present."""
