"""One move of one stream from ``sigma`` to ``sigma_next``; arithmetic in float32.

The same steps as ``ltx_core/components/diffusion_steps.py`` of Lightricks/LTX-2.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rayreel.diffusion.protocols import Denoised, Noise


def to_velocity(sample: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """Velocity that leads from ``x0`` to ``sample``, in the dtype of ``sample``.

    Raises:
        ValueError: If ``sigma`` is 0, where every velocity would do.
    """
    if sigma == 0:
        raise ValueError("sigma must be above 0: a clean sample has no velocity")
    return ((sample.float() - x0.float()) / sigma).to(sample.dtype)


def to_denoised(sample: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """Clean estimate of a velocity prediction, in the dtype of ``sample``.

    Args:
        sample: Tokens ``(B, T, D)``.
        velocity: What the transformer predicts for them.
        sigma: Noise level, one for all or ``(B, T, 1)``; a token at level 0 comes back unchanged.
    """
    return (sample.float() - velocity.float() * sigma).to(sample.dtype)


@dataclass(frozen=True, slots=True)
class Euler:
    """Straight line along the velocity."""

    adds_noise: bool = field(default=False, init=False)

    def step(self, sample: Tensor, denoised: Denoised, sigma: float, sigma_next: float) -> Tensor:
        """Tokens at ``sigma_next``."""
        velocity = to_velocity(sample, denoised.x0, sigma)
        return (sample.float() + velocity.float() * (sigma_next - sigma)).to(sample.dtype)


@dataclass(slots=True)
class GradientEstimation:
    """Euler along a velocity extrapolated from the last step; one instance per stream and run.

    Attributes:
        gamma: Weight of the newest velocity; 1 is plain Euler.

    Reference:
        Permenter and Yuan 2023, arXiv:2306.04848.
    """

    gamma: float = 2.0
    adds_noise: bool = field(default=False, init=False)
    _previous: Tensor | None = field(default=None, init=False, repr=False)

    def step(self, sample: Tensor, denoised: Denoised, sigma: float, sigma_next: float) -> Tensor:
        """Tokens at ``sigma_next``; the last step takes the estimate as it is."""
        if sigma_next == 0:
            return denoised.x0
        velocity, previous = to_velocity(sample, denoised.x0, sigma), self._previous
        self._previous = velocity
        if previous is not None:
            velocity = self.gamma * (velocity - previous) + previous
        x0 = to_denoised(sample, velocity, sigma)
        return Euler().step(sample, Denoised(x0=x0), sigma, sigma_next)


@dataclass(frozen=True, slots=True, kw_only=True)
class AncestralEuler:
    """Euler that goes below ``sigma_next`` and comes back up with fresh noise.

    Attributes:
        noise: Source of noise, drawn once per step unless ``eta`` is 0.
        eta: Share of the move that is redone with noise, in [0, 1].
        s_noise: Factor on the noise.
    """

    noise: Noise
    eta: float = 1.0
    s_noise: float = 1.0

    @property
    def adds_noise(self) -> bool:
        """Whether any noise is drawn."""
        return self.eta > 0

    def step(self, sample: Tensor, denoised: Denoised, sigma: float, sigma_next: float) -> Tensor:
        """Tokens at ``sigma_next``."""
        if sigma_next == 0:
            return denoised.x0
        sigma_down = sigma_next * (1 + (sigma_next / sigma - 1) * self.eta)
        moved = torch.lerp(denoised.x0.float(), sample.float(), sigma_down / sigma)
        if self.adds_noise:
            alpha_ratio = (1 - sigma_next) / (1 - sigma_down)
            renoise = math.sqrt(max(0.0, sigma_next**2 - (sigma_down * alpha_ratio) ** 2))
            moved = alpha_ratio * moved + self.s_noise * renoise * self.noise(sample)
        return moved.to(sample.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class CFGPlusPlusEuler:
    """Ancestral Euler whose noise direction comes from the unconditional estimate.

    Attributes:
        noise: Source of noise, drawn once per step unless ``eta`` or ``s_noise`` is 0.
        eta: Share of the move that is redone with noise, in [0, 1].
        s_noise: Factor on the noise.

    Reference:
        Chung et al. 2024, arXiv:2406.08070.
    """

    noise: Noise
    eta: float = 1.0
    s_noise: float = 1.0

    @property
    def adds_noise(self) -> bool:
        """Whether any noise is drawn."""
        return self.eta > 0 and self.s_noise > 0

    def step(self, sample: Tensor, denoised: Denoised, sigma: float, sigma_next: float) -> Tensor:
        """Tokens at ``sigma_next``.

        Raises:
            ValueError: If the denoiser gave no unconditional estimate.
        """
        if denoised.uncond is None:
            raise ValueError("CFG++ needs the unconditional estimate: force the uncond pass")
        if sigma_next == 0:
            return denoised.x0
        # Float32 in this order, as in the reference: ``down`` is a difference of close squares.
        start, end = torch.tensor((sigma, sigma_next)).unbind()
        alpha, alpha_next = ((1 - t).clamp(min=torch.finfo(t.dtype).eps) for t in (start, end))
        ratio, ratio_next = start / alpha, end / alpha_next
        renewed = ratio_next**2 * (ratio**2 - ratio_next**2).clamp(min=0) / ratio**2
        up = torch.minimum(ratio_next, self.eta * renewed.sqrt())
        down = (ratio_next**2 - up**2).clamp(min=0).sqrt()
        direction = (sample.float() - alpha * denoised.uncond.float()) / sigma
        moved = alpha_next * denoised.x0.float() + alpha_next * down * direction
        if self.adds_noise:
            moved = moved + alpha_next * up * self.s_noise * self.noise(sample)
        return moved.to(sample.dtype)
