"""Pushes away from weaker predictions of the clean stream; arithmetic in float32.

A delta is added to the conditional prediction. Each batch item is projected and scaled on its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rayreel.config.sampling import Guidance


@dataclass(frozen=True, slots=True)
class CFGGuider:
    """Classifier-free guidance, away from the unconditional prediction.

    Reference:
        Ho and Salimans 2022, arXiv:2207.12598.
    """

    scale: float

    @property
    def enabled(self) -> bool:
        """Whether the scale changes anything."""
        return not math.isclose(self.scale, 1)

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        return (self.scale - 1) * (cond - other)


@dataclass(frozen=True, slots=True)
class CFGStarGuider:
    """Classifier-free guidance with the unconditional prediction scaled to fit the conditional one.

    Reference:
        CFG-Zero*, Fan et al. 2025, arXiv:2503.18886.
    """

    scale: float

    @property
    def enabled(self) -> bool:
        """Whether the scale changes anything."""
        return not math.isclose(self.scale, 1)

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        return (self.scale - 1) * (cond - _project(cond, other))


@dataclass(frozen=True, slots=True)
class STGGuider:
    """Spatio-temporal guidance, away from a prediction with perturbed self-attention.

    Reference:
        Hyung et al. 2024, arXiv:2411.18664.
    """

    scale: float

    @property
    def enabled(self) -> bool:
        """Whether the scale changes anything."""
        return not math.isclose(self.scale, 0)

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the perturbed prediction."""
        return self.scale * (cond - other)


@dataclass(frozen=True, slots=True, kw_only=True)
class APGGuider:
    """Adaptive projected guidance: the push along the conditional prediction is damped.

    Attributes:
        scale: 1 is off.
        eta: Share kept of the push along the conditional prediction; 1 keeps all of it.
        norm_threshold: Largest norm of the raw push; 0 does not limit it.

    Reference:
        Sadat et al. 2024, arXiv:2410.02416.
    """

    scale: float
    eta: float = 1.0
    norm_threshold: float = 0.0

    @property
    def enabled(self) -> bool:
        """Whether the scale changes anything."""
        return not math.isclose(self.scale, 1)

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        push = _limit(cond - other, self.norm_threshold)
        return (self.scale - 1) * _damp_parallel(push, cond, self.eta)


@dataclass(slots=True, kw_only=True)
class LegacyAPGGuider:
    """The first form of APG: scaled by ``scale`` itself, with momentum over the steps of a run.

    It remembers its last push: one instance per stream and run.

    Attributes:
        scale: 0 is off.
        eta: Share kept of the push along the conditional prediction; 1 keeps all of it.
        norm_threshold: Largest norm of the accumulated push; 0 does not limit it.
        momentum: Share of the accumulated push that is carried to the next step.
    """

    scale: float
    eta: float = 1.0
    norm_threshold: float = 5.0
    momentum: float = 0.0
    _accumulated: Tensor | float = field(default=0.0, init=False, repr=False)

    @property
    def enabled(self) -> bool:
        """Whether the scale changes anything."""
        return not math.isclose(self.scale, 0)

    def delta(self, cond: Tensor, other: Tensor) -> Tensor:
        """Push away from ``other``, the unconditional prediction."""
        accumulated = self.momentum * self._accumulated + (cond - other)
        self._accumulated = accumulated
        push = _limit(accumulated, self.norm_threshold)
        return self.scale * _damp_parallel(push, cond, self.eta)


@dataclass(frozen=True, slots=True)
class MultiModalGuider:
    """All guidance of one stream: prompt, perturbed self-attention and the other stream."""

    guidance: Guidance

    @property
    def needs_uncond(self) -> bool:
        """Whether a prediction for the negative prompt is needed."""
        return self._cfg.enabled

    @property
    def needs_perturbed(self) -> bool:
        """Whether a prediction with perturbed self-attention is needed."""
        return self._stg.enabled

    @property
    def needs_isolated(self) -> bool:
        """Whether a prediction that cannot see the other stream is needed."""
        return self._modality.enabled

    def skips(self, step_index: int) -> bool:
        """Whether a step reuses the last prediction instead of evaluating the model."""
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
            cond: Prediction for the prompt. Rescaling takes the standard deviation over all of it,
                so a batch of requests is combined one by one.
            uncond: Prediction for the negative prompt; ``None`` where the pass did not run.
            perturbed: Prediction with perturbed self-attention, likewise.
            isolated: Prediction that cannot see the other stream, likewise.
        """
        start = guided = cond.float()
        if uncond is not None:
            guided = guided + self._cfg.delta(start, uncond.float())
        if perturbed is not None:
            guided = guided + self._stg.delta(start, perturbed.float())
        if isolated is not None:
            guided = guided + self._modality.delta(start, isolated.float())
        rescale = self.guidance.rescale_scale
        if not math.isclose(rescale, 0):
            guided = guided * (rescale * start.std() / guided.std() + (1 - rescale))
        return guided.to(cond.dtype)

    @property
    def _cfg(self) -> CFGGuider:
        return CFGGuider(self.guidance.cfg_scale)

    @property
    def _stg(self) -> STGGuider:
        return STGGuider(self.guidance.stg_scale)

    @property
    def _modality(self) -> CFGGuider:
        return CFGGuider(self.guidance.modality_scale)


def guidance_at(guidance: Guidance | Mapping[float, Guidance], sigma: float) -> Guidance:
    """Guidance at a noise level.

    Args:
        guidance: One for the whole run, or by upper bound of the noise level.
        sigma: Noise level.

    Returns:
        The entry with the smallest bound that is not below ``sigma``; above all of them, the last.
    """
    if isinstance(guidance, Guidance):
        return guidance
    bound = min((bound for bound in guidance if bound >= sigma), default=max(guidance))
    return guidance[bound]


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
