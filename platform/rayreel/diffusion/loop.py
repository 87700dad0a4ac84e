"""From noise to clean streams: a pure function of sigmas, states, denoiser and steppers.

Memory and progress are the caller's business.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

from torch import Tensor

from rayreel.diffusion.protocols import Denoised, Denoiser, Stepper
from rayreel.diffusion.streams import Pair, per_stream
from rayreel.types import LatentState


def denoise(
    sigmas: Tensor,
    states: Pair[LatentState],
    denoiser: Denoiser,
    steppers: tuple[Stepper, Stepper],
) -> Pair[LatentState]:
    """Denoise both streams along the noise levels.

    Args:
        sigmas: ``(steps + 1,)``, falling; the last level is never evaluated.
        states: Video and audio at the first level; an absent stream stays absent.
        denoiser: Called once per step.
        steppers: One per stream, since a stepper may remember its last step or draw its own noise.

    Returns:
        The states at the last level.
    """
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        advance = partial(_advance, sigma=sigma, sigma_next=sigma_next)
        states = per_stream(advance, states, denoiser(*states, sigma, index), steppers)
    return states


def restore_kept(values: Tensor, state: LatentState) -> Tensor:
    """Pull values towards the clean content as far as the mask keeps it, in the values' dtype.

    Args:
        values: Tokens or estimates ``(B, T, D)``.
        state: Its mask and clean content.
    """
    mask = state.denoise_mask
    return (values * mask + state.clean_latent.float() * (1 - mask)).to(values.dtype)


def _advance(
    state: LatentState, denoised: Denoised, stepper: Stepper, *, sigma: float, sigma_next: float
) -> LatentState:
    kept = replace(denoised, x0=restore_kept(denoised.x0, state))
    latent = stepper.step(state.latent, kept, sigma, sigma_next)
    if stepper.adds_noise and sigma_next > 0:
        latent = restore_kept(latent, state)
    return replace(state, latent=latent)
