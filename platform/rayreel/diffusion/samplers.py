"""Ways from noise to clean streams, by name: a step or a whole loop, with its usual parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from rayreel.diffusion.loop import denoise
from rayreel.diffusion.protocols import Denoiser, Noise, Stepper
from rayreel.diffusion.res2s import denoise_res2s
from rayreel.diffusion.steppers import AncestralEuler, CFGPlusPlusEuler, Euler, GradientEstimation
from rayreel.diffusion.streams import Pair
from rayreel.types import LatentState

Loop = Callable[[Tensor, Pair[LatentState], Denoiser], Pair[LatentState]]
"""Denoises both streams along noise levels ``(steps + 1,)``: an absent stream stays absent."""


class Sampler(Protocol):
    """Denoises both streams along given noise levels; it keeps nothing between runs."""

    @property
    def standardised_noise(self) -> bool:
        """Whether its noise is to have mean 0 and deviation 1 in each draw."""

    @property
    def needs_uncond(self) -> bool:
        """Whether the denoiser has to give the estimate for the negative prompt at every step."""

    def loop(self, noises: tuple[Noise, Noise]) -> Loop:
        """The loop of one run.

        Args:
            noises: Sources for video and audio; not every sampler draws.
        """


@dataclass(frozen=True, slots=True)
class StepperSampler:
    """One evaluation and one step per noise level.

    Attributes:
        stepper: Makes the stepper of one stream and run from its source of noise.
        needs_uncond: Whether that stepper reads the unconditional estimate.
    """

    stepper: Callable[[Noise], Stepper]
    needs_uncond: bool = False

    @property
    def standardised_noise(self) -> bool:
        """Plain noise."""
        return False

    def loop(self, noises: tuple[Noise, Noise]) -> Loop:
        """The loop with new steppers."""
        video, audio = noises
        return partial(denoise, steppers=(self.stepper(video), self.stepper(audio)))


@dataclass(frozen=True, slots=True)
class SecondOrderSampler:
    """Two evaluations per step and a last one: ``2 * steps + 1``."""

    @property
    def standardised_noise(self) -> bool:
        """Each draw is standardised."""
        return True

    @property
    def needs_uncond(self) -> bool:
        """It follows the guided estimate alone."""
        return False

    def loop(self, noises: tuple[Noise, Noise]) -> Loop:
        """The loop with its noise."""
        return partial(denoise_res2s, noises=noises)


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "euler": lambda: StepperSampler(lambda _: Euler()),
    "gradient_estimation": lambda: StepperSampler(lambda _: GradientEstimation()),
    "ancestral_euler": lambda: StepperSampler(lambda noise: AncestralEuler(noise=noise)),
    "cfg_plus_plus": lambda: StepperSampler(
        lambda noise: CFGPlusPlusEuler(noise=noise), needs_uncond=True
    ),
    "res_2s": SecondOrderSampler,
}
"""Samplers by the name that a request gives."""
