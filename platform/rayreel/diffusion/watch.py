"""Progress and cancellation of a run, seen from its denoiser: the loops know nothing of them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from rayreel.diffusion.loop import restore_kept
from rayreel.diffusion.protocols import Denoised, Denoiser
from rayreel.diffusion.states import VideoTarget, clear_conditioning
from rayreel.diffusion.streams import Pair
from rayreel.errors import Cancelled
from rayreel.types import LatentState


class CancelToken:
    """Asks work to stop, from any thread."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def cancel(self) -> None:
        """Ask for it; once is enough."""
        self._asked.set()

    @property
    def cancelled(self) -> bool:
        """Whether someone asked."""
        return self._asked.is_set()

    def check(self) -> None:
        """Stop here if someone asked.

        Raises:
            Cancelled: If so.
        """
        if self.cancelled:
            raise Cancelled("stopped before it was done, as asked")


def _ignore(phase: str, step: int, steps: int) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class Watch:
    """What follows a run; by default nothing does.

    Attributes:
        on_step: Told before each step: phase, step from 0, number of steps. It may cancel.
        token: Stops the run before its next evaluation of the model.
        on_estimate: If given, told after each evaluation with a picture of what gives the clean
            picture as it is estimated then: latents ``(B, C, F, H, W)``, computed when asked for.
    """

    on_step: Callable[[str, int, int], None] = _ignore
    token: CancelToken = field(default_factory=CancelToken)
    on_estimate: Callable[[Callable[[], Tensor]], None] | None = None


def watched(
    denoiser: Denoiser,
    watch: Watch,
    phase: str,
    steps: int,
    picture: VideoTarget | None = None,
) -> Denoiser:
    """The same denoiser for one run, reporting each step once and stopping when asked.

    Args:
        denoiser: Evaluated as before, unless the run is cancelled.
        watch: Told of the steps.
        phase: Name of the run.
        steps: Its number of steps. Evaluations behind the last step are not reported.
        picture: What it makes, for those who want to see estimates of it.
    """
    return _Watched(denoiser, watch, phase, steps, picture)


@dataclass(slots=True)
class _Watched:
    denoiser: Denoiser
    watch: Watch
    phase: str
    steps: int
    picture: VideoTarget | None
    _reported: int = field(default=-1, init=False)

    def __call__(
        self,
        video: LatentState | None,
        audio: LatentState | None,
        sigma: float,
        step_index: int,
    ) -> Pair[Denoised]:
        self.watch.token.check()
        if self._reported < step_index < self.steps:
            self._reported = step_index
            self.watch.on_step(self.phase, step_index, self.steps)
        estimates = self.denoiser(video, audio, sigma, step_index)
        if self.watch.on_estimate and self.picture and video and estimates[0]:
            self.watch.on_estimate(partial(_latents, estimates[0].x0, video, self.picture))
        return estimates


def _latents(x0: Tensor, state: LatentState, target: VideoTarget) -> Tensor:
    clean = replace(state, latent=restore_kept(x0, state))
    return target.unpatchify(clear_conditioning(clean, target).latent)
