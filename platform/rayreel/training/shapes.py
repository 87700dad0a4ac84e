"""What decides whether samples can share a pass through the model, and what they cost."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

LatentSize = tuple[int, int, int]
"""Latent frames, height and width."""


class Sizes(NamedTuple):
    """What a strategy reads of a sample; what it does not is ``None``.

    Attributes:
        video: Of the picture.
        audio: Steps of sound.
        reference: Like ``video``.
        reference_audio: Like ``audio``.
    """

    video: LatentSize | None = None
    audio: int | None = None
    reference: LatentSize | None = None
    reference_audio: int | None = None

    @property
    def tokens(self) -> int:
        """That the model reads of the sample, references included."""
        grids = (one for one in (self.video, self.reference) if one)
        steps = (one for one in (self.audio, self.reference_audio) if one)
        return sum(frames * height * width for frames, height, width in grids) + sum(steps)


@dataclass(frozen=True, slots=True)
class SampleShape:
    """The shape of a sample, of whatever kind its samples are.

    Attributes:
        key: Samples of equal ones can share a pass; of a dataset, their ``Sizes``.
        tokens: That the model reads of a sample.
    """

    key: Hashable
    tokens: int
