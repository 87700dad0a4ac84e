"""Samples of a dataset as a strategy wants them: what is noised, what is shown, what is learned.

Examples are made in threads that read ahead; nothing here changes while they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rayreel.conditioning.keyframes import Keyframe
from rayreel.conditioning.references import ReferenceAudio, ReferenceVideo
from rayreel.config.strategies import Reference, Streams, StreamSpec
from rayreel.data.columns import TrainingSample
from rayreel.diffusion.states import Target
from rayreel.errors import SpecError
from rayreel.training.example import Batch, Draws, StreamBatch
from rayreel.training.geometry import Geometry
from rayreel.training.regions import kept_tokens, latent_region
from rayreel.training.timesteps import SigmaSampler
from rayreel.types import LatentState


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One stream of a sample before chance has its say.

    Attributes:
        name: ``video`` or ``audio``: draws are named after it.
        spec: What becomes of it.
        target: What its tokens are.
        latent: Clean, float32 ``(1, C, ...)``.
        mask: Of the sample.
        with_reference: Appends the sample's reference to a state, as a condition says.
    """

    name: str
    spec: StreamSpec
    target: Target
    latent: Tensor
    mask: Tensor | None
    with_reference: Callable[[LatentState, Reference], LatentState]


class ExampleMaker:
    """Makes what a model is trained on of samples; safe to call from many threads."""

    def __init__(
        self,
        streams: Streams,
        geometry: Geometry,
        sampler: SigmaSampler,
        *,
        reference_scales: tuple[int, int] = (1, 1),
    ) -> None:
        """Remember how.

        Args:
            streams: The strategy.
            geometry: Of the model.
            sampler: Draws noise levels.
            reference_scales: Target pixels per reference pixel, and target frames per reference
                frame.

        Raises:
            SpecError: If the strategy shows a rectangle that is too small for the model.
        """
        self._streams = streams
        self._geometry = geometry
        self._sampler = sampler
        self._space, self._time = reference_scales
        _check_regions(streams, geometry)

    def __call__(self, sample: TrainingSample, draws: Draws) -> Batch:
        """One sample as a batch of its own.

        Args:
            sample: Has what the strategy needs.
            draws: Its chance.

        Raises:
            ValueError: If it has not.
        """
        if sample.text is None:
            raise ValueError(f"sample {sample.info.sample_id} has no text")
        video, audio = self._video(sample), self._audio(sample)
        shared = video if self._streams.shared_sigma else None
        return Batch(
            video=self._stream(video, video, draws) if video else None,
            audio=self._stream(audio, shared or audio, draws) if audio else None,
            texts=(sample.text,),
            samples=(draws.sample,),
        )

    def _video(self, sample: TrainingSample) -> _Source | None:
        spec, latents, reference = (
            self._streams.video,
            sample.video_latents,
            sample.reference_latents,
        )
        if spec is None:
            return None
        if latents is None:
            raise ValueError(f"sample {sample.info.sample_id} has no video_latents")
        if sample.info.fps is None:
            raise ValueError(f"sample {sample.info.sample_id} has no fps")
        target = self._geometry.video_target(latents, sample.info.fps)

        def with_reference(state: LatentState, condition: Reference) -> LatentState:
            if reference is None:
                raise ValueError(f"sample {sample.info.sample_id} has no reference_latents")
            if condition.frame:
                frame = condition.frame % target.shape.pixel_frames(target.factors)
                return Keyframe(latent=reference[None], frame_index=frame).apply(state, target)
            item = ReferenceVideo(
                latent=reference[None], downscale_factor=self._space, temporal_scale=self._time
            )
            return item.apply(state, target)

        return _Source(
            name="video",
            spec=spec,
            target=target,
            # The layout in which a token's channels lie together, as all later steps want them.
            latent=latents[None].to(torch.float32, memory_format=torch.channels_last_3d),
            mask=sample.video_mask,
            with_reference=with_reference,
        )

    def _audio(self, sample: TrainingSample) -> _Source | None:
        spec, latents, reference = (
            self._streams.audio,
            sample.audio_latents,
            sample.reference_audio_latents,
        )
        if spec is None:
            return None
        if latents is None:
            raise ValueError(f"sample {sample.info.sample_id} has no audio_latents")
        target = self._geometry.audio_target(latents)

        def with_reference(state: LatentState, _: Reference) -> LatentState:
            if reference is None:
                raise ValueError(f"sample {sample.info.sample_id} has no reference_audio_latents")
            own = self._geometry.audio_target(reference).initial_state(reference[None])
            return ReferenceAudio(tokens=own.latent, positions=own.positions).apply(state, target)

        return _Source(
            name="audio",
            spec=spec,
            target=target,
            latent=latents[None].float(),
            mask=sample.audio_mask,
            with_reference=with_reference,
        )

    def _stream(self, source: _Source, leading: _Source, draws: Draws) -> StreamBatch:
        """A stream, at the noise level that is drawn for the leading one."""
        state = _with_references(source, draws)
        clean = state.clean_latent
        if not source.spec.generated:
            return StreamBatch(
                noisy=clean,
                target=None,
                loss_mask=torch.zeros(clean.shape[:2]),
                timesteps=torch.zeros(1, 1),
                sigma=torch.zeros(1),
                positions=state.positions,
                keyframes_mask=state.keyframes_mask,
            )
        learned = state.denoise_mask.squeeze(-1)
        learned[0, : source.target.tokens][_kept(source, draws)] = 0
        sigma = torch.tensor(
            [self._sampler(leading.target.tokens, draws.of_sample(f"{leading.name}/sigma"))]
        )
        timesteps = learned * sigma
        # References get none, so that they change no other noise.
        noise = torch.zeros(clean.shape)
        noise[:, : source.target.tokens].normal_(generator=draws.of_sample(f"{source.name}/noise"))
        # At level 0 this is the clean token, exactly.
        noisy = torch.lerp(clean, noise, timesteps[..., None])
        return StreamBatch(
            noisy=noisy,
            target=noise.sub_(clean),
            loss_mask=learned,
            timesteps=sigma[None] if bool(learned.all()) else timesteps,
            sigma=sigma,
            positions=state.positions,
            keyframes_mask=state.keyframes_mask,
        )


def _with_references(source: _Source, draws: Draws) -> LatentState:
    """The clean stream, with references where they are drawn: all samples of a step have them."""
    state = source.target.initial_state(source.latent)
    for number, condition in enumerate(source.spec.conditions):
        if condition.type == "reference" and _happens(
            condition.probability, draws.of_step(f"{source.name}/condition{number}")
        ):
            state = source.with_reference(state, condition)
    return state


def _kept(source: _Source, draws: Draws) -> Tensor:
    """Target tokens that are shown, bool ``(T,)``: of all conditions that are drawn."""
    kept = torch.zeros(source.target.tokens, dtype=torch.bool)
    for number, condition in enumerate(source.spec.conditions):
        if condition.type != "reference" and _happens(
            condition.probability, draws.of_sample(f"{source.name}/condition{number}")
        ):
            kept |= kept_tokens(condition, source.target, source.mask)
    return kept


def _happens(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _check_regions(streams: Streams, geometry: Geometry) -> None:
    for condition in streams.video.conditions if streams.video else ():
        if condition.type == "spatial_crop":
            top, left, bottom, right = latent_region(condition, geometry.factors)
            if top == bottom or left == right:
                height, width = geometry.factors[1:]
                raise SpecError(
                    f"spatial_crop {list(condition.region)} covers no latent position, which are "
                    f"{height} x {width} pixels here; expected multiples of them, such as "
                    f"[0, 0, {height * 9}, {width * 18}]"
                )
