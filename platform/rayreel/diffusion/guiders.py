"""Pushes away from weaker predictions of the clean stream; arithmetic in float32.

A delta is added to the conditional prediction. Each batch item is projected and scaled on its own.
"""

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from rayreel.config.sampling import Guidance
from rayreel.diffusion.protocols import Guider


@dataclass(frozen=True, slots=True)
class _Scaled:
    """What all guiders share; ``off`` is the scale at which nothing is pushed."""

    scale: float
    off: ClassVar[float] = 1

    @property
    def enabled(self) -> bool:
        """Whether the scale changes anything."""
        return not math.isclose(self.scale, self.off)

    def rescaled(self, scale: float) -> Self:
        """The same guider at another scale; what it remembers is shared."""
        return replace(self, scale=scale)


@dataclass(frozen=True, slots=True)
class CFGGuider(_Scaled):
    """Classifier-free guidance, away from the unconditional prediction.

    Reference:
        Ho and Salimans 2022, arXiv:2207.12598.
    """

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        return (self.scale - 1) * (cond - other)


@dataclass(frozen=True, slots=True)
class CFGStarGuider(_Scaled):
    """Classifier-free guidance with the unconditional prediction scaled to fit the conditional one.

    Reference:
        CFG-Zero*, Fan et al. 2025, arXiv:2503.18886.
    """

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        return (self.scale - 1) * (cond - _project(cond, other))


@dataclass(frozen=True, slots=True)
class STGGuider(_Scaled):
    """Spatio-temporal guidance, away from a prediction that leaves out some attention.

    Reference:
        Hyung et al. 2024, arXiv:2411.18664.
    """

    off: ClassVar[float] = 0

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the perturbed prediction."""
        return self.scale * (cond - other)


@dataclass(frozen=True, slots=True, kw_only=True)
class APGGuider(_Scaled):
    """Adaptive projected guidance: the push along the conditional prediction is damped.

    Attributes:
        scale: 1 is off.
        eta: Share kept of the push along the conditional prediction; 1 keeps all of it.
        norm_threshold: Largest norm of the raw push; 0 does not limit it.

    Reference:
        Sadat et al. 2024, arXiv:2410.02416.
    """

    eta: float = 1.0
    norm_threshold: float = 0.0

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        push = _limit(cond - other, self.norm_threshold)
        return (self.scale - 1) * _damp_parallel(push, cond, self.eta)


@dataclass(slots=True)
class _Accumulated:
    """Push of the steps so far."""

    push: Tensor | float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyAPGGuider(_Scaled):
    """The first form of APG: scaled by ``scale`` itself, with momentum over the steps of a run.

    It remembers its last push: one instance per stream, request and run.

    Attributes:
        scale: 0 is off.
        eta: Share kept of the push along the conditional prediction; 1 keeps all of it.
        norm_threshold: Largest norm of the accumulated push; 0 does not limit it.
        momentum: Share of the accumulated push that is carried to the next step.
    """

    off: ClassVar[float] = 0

    eta: float = 1.0
    norm_threshold: float = 5.0
    momentum: float = 0.0
    _accumulated: _Accumulated = field(default_factory=_Accumulated, repr=False)

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        accumulated = self.momentum * self._accumulated.push + (cond - other)
        self._accumulated.push = accumulated
        push = _limit(accumulated, self.norm_threshold)
        return self.scale * _damp_parallel(push, cond, self.eta)


GUIDERS: dict[str, Callable[[Guidance], Guider]] = {
    "cfg": lambda guidance: CFGGuider(guidance.cfg_scale),
    "cfg_star": lambda guidance: CFGStarGuider(guidance.cfg_scale),
    "apg": lambda guidance: APGGuider(
        scale=guidance.cfg_scale, eta=guidance.eta, norm_threshold=guidance.norm_threshold
    ),
    "legacy_apg": lambda guidance: LegacyAPGGuider(
        scale=guidance.cfg_scale,
        eta=guidance.eta,
        norm_threshold=guidance.norm_threshold,
        momentum=guidance.momentum,
    ),
}
"""Ways to push away from the negative prompt, by ``Guidance.method``."""


@dataclass(slots=True)
class MultiModalGuider:
    """All guidance of one stream of one request: prompt, left-out attention and the other stream.

    It may remember earlier steps: one instance per stream, request and run.

    Attributes:
        guidance: For a run, where it tells what any step may need, or for one noise level.

    Raises:
        ValueError: If the method is not a known one.
    """

    guidance: Guidance
    _away: Guider = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the guider that the method names."""
        if self.guidance.method not in GUIDERS:
            near = difflib.get_close_matches(self.guidance.method, GUIDERS, n=1, cutoff=0)
            raise ValueError(
                f"guidance method {self.guidance.method!r} is unknown; nearest is {near[0]!r}, "
                f"known are {', '.join(GUIDERS)}"
            )
        self._away = GUIDERS[self.guidance.method](self.guidance)

    def at(self, sigma: float) -> "MultiModalGuider":
        """The guider of one noise level; it shares the memory of this one."""
        current = MultiModalGuider(guidance_at(self.guidance, sigma))
        current._away = self._away.rescaled(current.guidance.cfg_scale)
        return current

    @property
    def needs_uncond(self) -> bool:
        """Whether a prediction for the negative prompt is needed."""
        return any(self._away.rescaled(g.cfg_scale).enabled for g in _choices(self.guidance))

    @property
    def needs_perturbed(self) -> bool:
        """Whether a prediction that leaves out attention is needed."""
        return any(STGGuider(g.stg_scale).enabled for g in _choices(self.guidance))

    @property
    def needs_isolated(self) -> bool:
        """Whether a prediction that cannot see the other stream is needed."""
        return any(CFGGuider(g.modality_scale).enabled for g in _choices(self.guidance))

    def skips(self, step_index: int) -> bool:
        """Whether a step reuses the last prediction instead of evaluating the model."""
        self._check_level()
        return step_index % (self.guidance.skip_step + 1) != 0

    def combine(
        self,
        cond: Tensor,
        *,
        uncond: Tensor | None = None,
        perturbed: Tensor | None = None,
        isolated: Tensor | None = None,
    ) -> Tensor:
        """The guided prediction, in the dtype of ``cond``.

        Args:
            cond: Prediction for the prompt, ``(B, T, D)``. Rescaling takes the standard deviation
                over all of it, so requests are combined one by one.
            uncond: Prediction for the negative prompt; ``None`` where the pass did not run.
            perturbed: Prediction that leaves out attention, likewise.
            isolated: Prediction that cannot see the other stream, likewise.
        """
        self._check_level()
        start = guided = cond.float()
        if uncond is not None:
            guided = guided + self._away.delta(start, uncond.float())
        if perturbed is not None:
            guided = guided + STGGuider(self.guidance.stg_scale).delta(start, perturbed.float())
        if isolated is not None:
            push = CFGGuider(self.guidance.modality_scale)
            guided = guided + push.delta(start, isolated.float())
        rescale = self.guidance.rescale_scale
        if not math.isclose(rescale, 0):
            guided = guided * (rescale * start.std() / guided.std() + (1 - rescale))
        return guided.to(cond.dtype)

    def _check_level(self) -> None:
        assert not self.guidance.by_sigma, "this depends on the noise level: ask at() first"


def guidance_at(guidance: Guidance, sigma: float) -> Guidance:
    """Guidance at a noise level, without bins.

    Args:
        guidance: Perhaps with bins.
        sigma: Noise level; a bin that ends at 1 also holds above 1.
    """
    if not guidance.by_sigma:
        return guidance
    # Levels are float32 numbers: one that was written as 0.725 comes as 0.725000024.
    level = min(sigma, 1.0) * (1 - 1e-6)
    reaching = [one for one in guidance.by_sigma if one.up_to >= level]
    update: dict[str, Any] = {"by_sigma": ()}
    if reaching:
        chosen = min(reaching, key=lambda one: one.up_to)
        update |= chosen.model_dump(exclude={"up_to"}, exclude_none=True)
    return guidance.model_copy(update=update)


def _choices(guidance: Guidance) -> Iterator[Guidance]:
    """Everything that a run with this guidance may come to."""
    yield guidance_at(guidance, 1.0)
    for one in guidance.by_sigma:
        yield guidance_at(guidance, one.up_to)


def _items(values: Tensor) -> tuple[int, ...]:
    return tuple(range(1, values.dim()))


def _project(values: Tensor, onto: Tensor) -> Tensor:
    """The part of each batch item of ``values`` that lies along ``onto``."""
    axes = _items(onto)
    along = (values * onto).sum(axes, keepdim=True)
    return along / (onto.square().sum(axes, keepdim=True) + 1e-8) * onto


def _limit(push: Tensor, norm_threshold: float) -> Tensor:
    if norm_threshold <= 0:
        return push
    norm = push.square().sum(_items(push), keepdim=True).sqrt()
    return push * (norm_threshold / norm).clamp(max=1)


def _damp_parallel(push: Tensor, cond: Tensor, eta: float) -> Tensor:
    parallel = _project(push, cond)
    return parallel * eta + (push - parallel)
