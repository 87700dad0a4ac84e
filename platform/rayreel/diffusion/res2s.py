"""Second-order exponential integrator in log-sigma with noise at the midpoint and at the step.

The same numerics as the ``res_2s`` loop of Lightricks/LTX-2, here per batch item.

Reference:
    Refined exponential solver, Zhang et al. 2023, arXiv:2308.02157.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from rayreel.diffusion.loop import restore_kept
from rayreel.diffusion.protocols import Denoised, Denoiser, Noise
from rayreel.diffusion.streams import Pair, per_stream
from rayreel.types import LatentState

LAST_SIGMA = 0.0011
"""Level of the final evaluation: 0 has no logarithm."""

MIDPOINT_ETA = 0.5

# Metal has no float64; the reference takes float32 there too.
_PRECISION = {"mps": torch.float32}


def denoise_res2s(
    sigmas: Tensor,
    states: Pair[LatentState],
    denoiser: Denoiser,
    noises: tuple[Noise, Noise],
    *,
    eta: float = 0.5,
    refinements: int = 100,
    per_token_noise: bool = False,
) -> Pair[LatentState]:
    """Denoise both streams with two evaluations per step.

    Args:
        sigmas: ``(steps + 1,)``, falling. A last level of 0 becomes ``LAST_SIGMA``, and one more
            evaluation there is the result: ``2 * steps + 1`` evaluations.
        states: Video and audio at the first level; an absent stream stays absent.
        denoiser: Called with states in their own dtype; the arithmetic between is float64, on
            Metal float32.
        noises: Sources for video and audio, drawn for the midpoint and then for the step.
        eta: Share of the noise that each step renews, in [0, 1]; midpoints always renew half.
        refinements: How often a short step fits its anchor to the noised midpoint.
        per_token_noise: Let the noise follow each token's own level instead of restoring the kept
            content afterwards. A request that keeps any token completely then gets no noise.

    Returns:
        The states at the last level.

    Raises:
        ValueError: If the level before a last one of 0 is not above ``LAST_SIGMA``.
    """
    levels = sigmas.tolist()
    ends_clean = levels[-1] == 0
    if ends_clean:
        if levels[-2] <= LAST_SIGMA:
            raise ValueError(
                f"noise level {len(levels) - 2} is {levels[-2]:g}; the second-order sampler needs "
                f"the last one before 0 above {LAST_SIGMA}"
            )
        levels[-1] = LAST_SIGMA
    for index, (sigma, sigma_next) in enumerate(pairwise(levels)):
        step = _Step(sigma, sigma_next, eta, refinements, per_token_noise)
        halves = per_stream(step.half, states, denoiser(*states, sigma, index), noises)
        middle = per_stream(lambda half: half.state, halves)
        states = per_stream(step.finish, halves, denoiser(*middle, step.sigma_middle, index))
    if ends_clean:
        states = per_stream(_accept, states, denoiser(*states, LAST_SIGMA, len(levels) - 1))
    return states


class Coefficients(NamedTuple):
    """Weights of a two-stage exponential step with its midpoint at one half."""

    a21: float
    b1: float
    b2: float


def coefficients(h: float) -> Coefficients:
    """Weights for a step of ``h = -ln(sigma_next / sigma)``."""
    b2 = 2 * _phi2(-h)
    return Coefficients(a21=_phi1(-h / 2) / 2, b1=_phi1(-h) - b2, b2=b2)


def sde_step(
    sample: Tensor,
    prediction: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    *,
    eta: float,
) -> Tensor:
    """Replace part of the noise in a deterministic prediction by fresh noise.

    Args:
        sample: Tokens ``(B, T, D)`` at ``sigma``.
        prediction: Where the deterministic step arrived at ``sigma_next``.
        noise: Fresh standard normal noise.
        sigma: Noise levels, ``(1, 1, 1)`` or ``(B, T, 1)``.
        sigma_next: The same at the end of the step.
        eta: Share of the noise that is renewed, in [0, 1].

    Returns:
        Tokens at ``sigma_next``. A batch item with any level at 0 keeps its prediction.
    """
    sigma_up = sigma_next * min(eta, 0.9999)
    kept = (sigma_next**2 - sigma_up**2).sqrt()
    alpha = 1 - sigma_next + kept
    direction = (sample - prediction) / (sigma - sigma_next)
    clean = sample - sigma * direction
    renoised = alpha * clean + kept * direction + sigma_up * noise
    noisy = (sigma_up > 0).all(dim=1, keepdim=True)
    return torch.where(noisy, renoised, prediction)


@dataclass(frozen=True, slots=True)
class _Half:
    """One stream between the two evaluations of a step: where it started and where it is."""

    anchor: Tensor
    x0: Tensor
    state: LatentState
    noise: Noise


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of both streams; the arguments of ``denoise_res2s`` and its two levels."""

    sigma: float
    sigma_next: float
    eta: float
    refinements: int
    per_token_noise: bool

    @property
    def h(self) -> float:
        return math.log(self.sigma / self.sigma_next)

    @property
    def sigma_middle(self) -> float:
        return math.sqrt(self.sigma * self.sigma_next)

    def half(self, state: LatentState, denoised: Denoised, noise: Noise) -> _Half:
        """To the midpoint, along the first estimate."""
        x0 = _precise(restore_kept(denoised.x0, state))
        anchor = _precise(state.latent)
        reach = self.h * coefficients(self.h).a21
        middle = anchor + reach * (x0 - anchor)
        middle = self._renoise(state, anchor, middle, noise, self.sigma_middle, MIDPOINT_ETA)
        if self.h < 0.5 and self.sigma > 0.03:
            for _ in range(self.refinements):
                anchor = middle - reach * (x0 - anchor)
        return _Half(anchor, x0, replace(state, latent=middle.to(state.latent.dtype)), noise)

    def finish(self, half: _Half, denoised: Denoised) -> LatentState:
        """To the end, along both estimates."""
        x0 = _precise(restore_kept(denoised.x0, half.state))
        _, b1, b2 = coefficients(self.h)
        end = half.anchor + self.h * (b1 * (half.x0 - half.anchor) + b2 * (x0 - half.anchor))
        end = self._renoise(half.state, half.anchor, end, half.noise, self.sigma_next, self.eta)
        return replace(half.state, latent=end.to(half.state.latent.dtype))

    def _renoise(
        self,
        state: LatentState,
        anchor: Tensor,
        prediction: Tensor,
        noise: Noise,
        sigma_next: float,
        eta: float,
    ) -> Tensor:
        mask = _precise(state.denoise_mask) if self.per_token_noise else anchor.new_ones(1, 1, 1)
        moved = sde_step(
            anchor, prediction, noise(anchor), mask * self.sigma, mask * sigma_next, eta=eta
        )
        return moved if self.per_token_noise else restore_kept(moved, state)


def _accept(state: LatentState, denoised: Denoised) -> LatentState:
    return replace(state, latent=restore_kept(denoised.x0, state))


def _precise(values: Tensor) -> Tensor:
    return values.to(_PRECISION.get(values.device.type, torch.float64))


def _phi1(z: float) -> float:
    return math.expm1(z) / z if abs(z) > 1e-10 else 1.0


def _phi2(z: float) -> float:
    return (math.expm1(z) - z) / z**2 if abs(z) > 1e-10 else 0.5
