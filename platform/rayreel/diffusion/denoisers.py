"""A model with its text contexts and its guidance: noisy states in, clean estimates out.

Letters: B batch of independent requests, T tokens, D width, L text tokens, C text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rayreel.config.sampling import Guidance, SkippedAttention
from rayreel.diffusion.guiders import MultiModalGuider
from rayreel.diffusion.protocols import Denoised
from rayreel.diffusion.steppers import to_denoised
from rayreel.diffusion.streams import Pair, per_stream
from rayreel.models.transformer.perturbations import (
    Perturbation,
    Perturbations,
    PerturbationType,
)
from rayreel.models.transformer.text import TextMemory
from rayreel.types import LatentState, Modality, TextContext, repeat_batch


class VelocityModel(Protocol):
    """The transformer, or anything that predicts velocities like it."""

    def __call__(
        self,
        video: Modality | None,
        audio: Modality | None,
        perturbations: Perturbations | None,
        memory: TextMemory | None,
    ) -> Pair[Tensor]:
        """Velocities ``(B, T, D)`` of the streams that are present.

        With a memory, the text is that of the calls with the same one.
        """


class _TokenLevels:
    """Noise levels of the tokens of one stream, over a run."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None
        self._distinct: Tensor | None = None

    def at(self, sigma: float, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Time steps and levels of a ``Modality``.

        Time steps are ``(B, 1, 1)``, without levels, where the tokens of each sample share one.
        """
        if mask is not self._mask:
            # A run has one mask, and asking for its values makes the host wait for the device.
            shared = bool((mask == mask[:, :1]).all())
            self._mask, self._distinct = mask, None if shared else torch.unique(mask)
        if self._distinct is None:
            return mask[:, :1] * sigma, None
        return mask * sigma, self._distinct * sigma


class _Memories:
    """The memory of the texts that a run evaluates, as long as they stay the same."""

    def __init__(self) -> None:
        self._texts: tuple[object, ...] = ()
        self._memory = TextMemory()

    def of(self, *texts: object) -> TextMemory:
        """The memory of what a step evaluates, by whatever tells texts and batches apart."""
        if texts != self._texts:
            self._texts, self._memory = texts, TextMemory()
        return self._memory


@dataclass(frozen=True, slots=True)
class SimpleDenoiser:
    """One unguided pass per evaluation, as distilled weights want it.

    Attributes:
        model: Predicts velocities.
        context: The prompt, one for all requests or batched.
    """

    model: VelocityModel
    context: TextContext
    _levels: tuple[_TokenLevels, _TokenLevels] = field(
        default_factory=lambda: (_TokenLevels(), _TokenLevels()), init=False, repr=False
    )
    _memories: _Memories = field(default_factory=_Memories, init=False, repr=False)

    def __call__(
        self,
        video: LatentState | None,
        audio: LatentState | None,
        sigma: float,
        step_index: int,  # noqa: ARG002 - every denoiser is told; only guidance counts steps
    ) -> Pair[Denoised]:
        """Estimates for the streams that are present."""
        streams = per_stream(
            lambda state, context, levels: _modality(state, [context], True, levels, sigma=sigma),
            (video, audio),
            (self.context.video, self.context.audio),
            self._levels,
        )
        memory = self._memories.of(_batch(streams))
        estimates = _estimates(streams, self.model(*streams, None, memory))
        return per_stream(lambda x0: Denoised(x0=x0), estimates)


# Attention that a perturbed pass may leave out, for video and for audio: an exchange between the
# streams is named after both, and leaving it out is felt by the stream that it writes to.
_SKIPPED: dict[SkippedAttention, tuple[PerturbationType, PerturbationType]] = {
    "self_attention": (
        PerturbationType.SKIP_VIDEO_SELF_ATTN,
        PerturbationType.SKIP_AUDIO_SELF_ATTN,
    ),
    "cross_modal": (
        PerturbationType.SKIP_A2V_CROSS_ATTN,
        PerturbationType.SKIP_V2A_CROSS_ATTN,
    ),
}


class _Pass(NamedTuple):
    context: TextContext
    skipped: tuple[Perturbation, ...] = ()


@dataclass(kw_only=True)
class GuidedDenoiser:
    """Multi-modal guidance: all passes of a step in one forward, along the batch.

    It remembers its last estimates for the steps that guidance skips, and its guiders remember
    their pushes: one instance per run.

    Attributes:
        model: Predicts velocities.
        positive: The prompt, one for all requests or batched.
        negative: The negative prompt, needed where a guider or ``force_uncond`` asks for it.
        video_guidance: For the whole run, with its bins by noise level.
        audio_guidance: The same for the audio stream.
        force_uncond: Evaluate the negative prompt whatever the scales are, as CFG++ wants it.
    """

    model: VelocityModel
    positive: TextContext
    negative: TextContext | None = None
    video_guidance: Guidance = field(default_factory=Guidance)
    audio_guidance: Guidance = field(default_factory=Guidance)
    force_uncond: bool = False
    _guiders: Pair[list[MultiModalGuider]] = field(default=(None, None), init=False, repr=False)
    _last: Pair[Denoised] = field(default=(None, None), init=False, repr=False)
    _levels: tuple[_TokenLevels, _TokenLevels] = field(
        default_factory=lambda: (_TokenLevels(), _TokenLevels()), init=False, repr=False
    )
    _memories: _Memories = field(default_factory=_Memories, init=False, repr=False)

    def __call__(
        self,
        video: LatentState | None,
        audio: LatentState | None,
        sigma: float,
        step_index: int,
    ) -> Pair[Denoised]:
        """Estimates for the streams that are present.

        Raises:
            ValueError: If any step of the run needs the negative prompt and there is none, or if a
                guidance method is unknown.
        """
        guiders = self._active_guiders((video, audio), sigma, step_index)
        if guiders == (None, None):
            return self._last
        passes = self._passes(guiders, isolates=video is not None and audio is not None)
        streams = per_stream(
            partial(_modality, sigma=sigma),
            (video, audio),
            (
                [one.context.video for one in passes.values()],
                [one.context.audio for one in passes.values()],
            ),
            (guiders[0] is not None, guiders[1] is not None),
            self._levels,
        )
        skipped = [one.skipped for one in passes.values()]
        memory = self._memories.of(_batch(streams), *passes)
        velocities = self.model(*streams, _perturbations(streams, skipped), memory)
        estimates = _estimates(streams, velocities)
        guided = per_stream(lambda x0, own: _combine(x0, own, list(passes)), estimates, guiders)
        self._last = guided[0] or self._last[0], guided[1] or self._last[1]
        return self._last

    def _active_guiders(
        self, states: Pair[LatentState], sigma: float, step_index: int
    ) -> Pair[list[MultiModalGuider]]:
        """Guiders of the streams that this step evaluates, one per request."""
        if self._guiders == (None, None):
            self._guiders = self._run_guiders(states)
        guiders = per_stream(lambda own: [guider.at(sigma) for guider in own], self._guiders)
        video, audio = (None if own is None or own[0].skips(step_index) else own for own in guiders)
        return video, audio

    def _run_guiders(self, states: Pair[LatentState]) -> Pair[list[MultiModalGuider]]:
        guiders = per_stream(
            lambda state, guidance: [MultiModalGuider(guidance) for _ in state.latent],
            states,
            (self.video_guidance, self.audio_guidance),
        )
        needed = self.force_uncond or any(own[0].needs_uncond for own in guiders if own)
        if needed and self.negative is None:
            raise ValueError("guidance away from the negative prompt needs a negative prompt")
        return guiders

    def _passes(self, guiders: Pair[list[MultiModalGuider]], *, isolates: bool) -> dict[str, _Pass]:
        """What to evaluate, by the name that ``MultiModalGuider.combine`` gives it."""
        # Requests of a batch share their guidance.
        streams = per_stream(lambda own: own[0], guiders)
        active = [guider for guider in streams if guider is not None]
        passes = {"cond": _Pass(self.positive)}
        if self.force_uncond or any(guider.needs_uncond for guider in active):
            assert self.negative is not None, "checked when the run starts"
            passes["uncond"] = _Pass(self.negative)
        # A stream on its own receives nothing from the other, and has nothing to be isolated from.
        skipped = tuple(
            Perturbation(_SKIPPED[what][stream], guider.guidance.stg_blocks)
            for stream, guider in enumerate(streams)
            if guider is not None and guider.needs_perturbed
            for what in guider.guidance.stg_skips
            if isolates or what != "cross_modal"
        )
        if skipped:
            passes["perturbed"] = _Pass(self.positive, skipped)
        if isolates and any(guider.needs_isolated for guider in active):
            passes["isolated"] = _Pass(
                self.positive, tuple(Perturbation(kind) for kind in _SKIPPED["cross_modal"])
            )
        return passes


def _modality(
    state: LatentState,
    contexts: Sequence[Tensor],
    enabled: bool,
    levels: _TokenLevels,
    *,
    sigma: float,
) -> Modality:
    """The stream once per context, along the batch."""
    batched = [context.expand(len(state.latent), -1, -1) for context in contexts]
    timesteps, distinct = levels.at(sigma, state.denoise_mask)
    # A stream with nothing to generate is a pure condition: the model sees it at noise level 0.
    generates = (state.denoise_mask > 0).flatten(1).any(dim=1)
    once = Modality(
        latent=state.latent,
        sigma=generates.float() * sigma,
        timesteps=timesteps,
        levels=distinct,
        positions=state.positions,
        context=batched[0],
        attention_mask=state.attention_mask,
        keyframes_mask=state.keyframes_mask,
        enabled=enabled,
    )
    return replace(repeat_batch(once, len(contexts)), context=torch.cat(batched))


def _perturbations(
    streams: Pair[Modality], skipped: Sequence[tuple[Perturbation, ...]]
) -> Perturbations | None:
    """What each pass skips, for each sample of the passes along the batch."""
    if not any(skipped):
        return None
    return [one for one in skipped for _ in range(_batch(streams) // len(skipped))]


def _batch(streams: Pair[Modality]) -> int:
    return next(len(stream.latent) for stream in streams if stream is not None)


def _estimates(streams: Pair[Modality], velocities: Pair[Tensor]) -> Pair[Tensor]:
    """Clean estimates of one forward."""
    return per_stream(
        lambda stream, velocity: to_denoised(stream.latent, velocity, stream.timesteps),
        streams,
        velocities,
    )


def _combine(x0: Tensor, guiders: Sequence[MultiModalGuider], passes: Sequence[str]) -> Denoised:
    """One estimate of those of all passes, request by request."""
    estimates = dict(zip(passes, x0.chunk(len(passes)), strict=True))
    requests = zip(*(torch.split(estimate, 1) for estimate in estimates.values()), strict=True)
    combined = [
        guider.combine(**dict(zip(passes, rows, strict=True)))
        for guider, rows in zip(guiders, requests, strict=True)
    ]
    return Denoised(x0=torch.cat(combined), uncond=estimates.get("uncond"))
