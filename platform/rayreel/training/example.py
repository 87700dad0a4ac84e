"""Samples as a model is trained on them: what it reads, and what it should answer.

Letters: B samples, N tokens of a stream, target tokens first, D width of a token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rayreel.types import TextFeatures, seeded_generator


@dataclass(frozen=True, slots=True)
class Draws:
    """Where the chance of one sample in one epoch comes from: nothing else decides about it.

    So a sample gets the same noise on every worker, in every batch, and in a run that went on.

    Attributes:
        seed: Of the run.
        epoch: From 0.
        step: Optimiser step, from 0.
        sample: Its number in the dataset.
    """

    seed: int
    epoch: int
    step: int
    sample: int

    def of_sample(self, purpose: str) -> torch.Generator:
        """Generator of what is drawn for the sample alone."""
        return seeded_generator(self.seed, f"epoch{self.epoch}/sample{self.sample}/{purpose}")

    def of_step(self, purpose: str) -> torch.Generator:
        """Generator of what all samples of the step share."""
        return seeded_generator(self.seed, f"step{self.step}/{purpose}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBatch:
    """One stream of some samples.

    Attributes:
        noisy: What the model reads, float32 ``(B, N, D)``.
        target: Velocity that it should predict, ``noise - clean``, float32 like ``noisy``; or
            ``None`` for a stream that is context alone.
        loss_mask: Float32 ``(B, N)``: 1 where the prediction counts.
        timesteps: Noise level of each token, float32 ``(B, N)``: 0 for clean ones; or ``(B, 1)``
            where all tokens of each sample share one.
        sigma: Noise level of the stream, float32 ``(B,)``.
        positions: Float32 ``(B, axes, N, 2)``, or ``(1, axes, N, 2)`` where all samples share them,
            as in ``Modality``.
        keyframes_mask: ``(B, N, 1)``, as in ``Modality``, or ``None``.
    """

    noisy: Tensor
    target: Tensor | None
    loss_mask: Tensor
    timesteps: Tensor
    sigma: Tensor
    positions: Tensor
    keyframes_mask: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some samples of one shape, or one of them.

    Attributes:
        video: ``None`` where the strategy has no such stream.
        audio: The same.
        texts: Of each sample, before any connector.
        samples: Their numbers in the dataset.
    """

    video: StreamBatch | None
    audio: StreamBatch | None
    texts: tuple[TextFeatures, ...]
    samples: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of both streams and all samples."""
        streams = [one for one in (self.video, self.audio) if one]
        return sum(one.noisy.shape[0] * one.noisy.shape[1] for one in streams)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; what is left of the CPU's work goes on meanwhile."""

        def moved(stream: StreamBatch | None) -> StreamBatch | None:
            return stream and _mapped(lambda t: t.to(device, non_blocking=True), stream)

        return replace(
            self,
            video=moved(self.video),
            audio=moved(self.audio),
            texts=tuple(text.to(device) for text in self.texts),
        )


def stacked(batches: Sequence[Batch]) -> Batch:
    """Samples of one shape as one batch."""
    first = batches[0]
    return Batch(
        video=first.video and _joined([b.video for b in batches if b.video]),
        audio=first.audio and _joined([b.audio for b in batches if b.audio]),
        texts=tuple(text for batch in batches for text in batch.texts),
        samples=tuple(sample for batch in batches for sample in batch.samples),
    )


def _joined(streams: Sequence[StreamBatch]) -> StreamBatch:
    def along_the_batch(name: str) -> Tensor | None:
        values = [getattr(stream, name) for stream in streams]
        return None if values[0] is None else torch.cat(values)

    joined = {
        field.name: along_the_batch(field.name)
        for field in fields(StreamBatch)
        if field.name not in {"timesteps", "positions"}
    }
    return replace(
        streams[0],
        **{name: v for name, v in joined.items() if v is not None},
        timesteps=_joined_timesteps([stream.timesteps for stream in streams]),
        positions=_joined_positions(streams),
    )


def _joined_timesteps(timesteps: Sequence[Tensor]) -> Tensor:
    """One for each token, if some samples need that."""
    width = max(one.shape[1] for one in timesteps)
    return torch.cat([one.expand(-1, width) for one in timesteps])


def _joined_positions(streams: Sequence[StreamBatch]) -> Tensor:
    """Once, if samples share them: the model makes large tables of them."""
    first = streams[0].positions
    if len(first) == 1 and all(torch.equal(first, stream.positions) for stream in streams):
        return first
    return torch.cat([one.positions.expand(len(one.sigma), -1, -1, -1) for one in streams])


def _mapped(change: Callable[[Tensor], Tensor], stream: StreamBatch) -> StreamBatch:
    tensors = {field.name: getattr(stream, field.name) for field in fields(StreamBatch)}
    return replace(stream, **{name: change(t) for name, t in tensors.items() if t is not None})
