"""The latents of a long clip as one sequence, of which any stretch can be read.

Chunks overlap: what one handed to the next is in it once. Decoded with its neighbours on both
sides, a stretch looks as it would in a decode of the whole, so there is nothing to see of a joint.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.pipelines.chain import ChunkStore
from rayreel.pipelines.chunks import Chunk
from rayreel.types import ClipStream, Latents

CONTEXT = 5
"""Latent frames that a stretch is decoded with on either side: decoders see hardly any further.

Of the tiny model's, what lies beyond changes at most the rounding; with 4 it is up to 11 levels.
"""


class Decoder(Protocol):
    """Latents to frames and sound."""

    def __call__(self, request: RenderRequest, latents: Latents) -> ClipStream:
        """Frames when they are read, and sound now."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Latent frames of one chunk that the sequence takes.

    Attributes:
        chunk: The chunk.
        start: First of its latent frames.
        stop: The one after the last.
        shown: Frames of the whole sequence that are shown of it, the end excluded.
    """

    chunk: Chunk
    start: int
    stop: int
    shown: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Latents of the clip that is made longer, for the decoder to see beside the new ones.

    Attributes:
        before: Its last latent frames ``(C, F, H, W)``, where the new ones follow.
        after: Its first ones but the very first, where the new ones come before.
    """

    before: Tensor | None = None
    after: Tensor | None = None


def decode_stretches(
    decode: Decoder,
    stretches: Sequence[Stretch],
    store: ChunkStore,
    time_factor: int,
    beside: Neighbours,
) -> Generator[Tensor, None, None]:
    """Frames of the stretches one after the other, RGB ``uint8`` ``(F, H, W, 3)``.

    Args:
        decode: Of the pipeline that rendered the chunks.
        stretches: In the order of time.
        store: Of the chunks.
        time_factor: Pixel frames per latent frame.
        beside: What the sequence begins and ends with, beside them.
    """
    pieces = [partial(_latents, stretch, store) for stretch in stretches]
    sequence = _Sequence(
        [
            *_known(beside.before),
            *zip(pieces, (stretch.stop - stretch.start for stretch in stretches), strict=True),
            *_known(beside.after),
        ]
    )
    begin = 0 if beside.before is None else beside.before.shape[1]
    for stretch in stretches:
        end = begin + stretch.stop - stretch.start
        first, last = max(0, begin - CONTEXT), end + CONTEXT
        latents = Latents(video=sequence.read(first, last), audio=None)
        # The first latent frame of a window stands for the last frame of those that it covers.
        position, begin = time_factor * first, end
        with closing(decode(stretch.chunk.request, latents).frames) as chunks:
            for chunk in chunks:
                start, stop = (max(0, edge - position) for edge in stretch.shown)
                position += len(chunk)
                if start < min(stop, len(chunk)):
                    yield chunk[start:stop]
                if position >= stretch.shown[1]:
                    break


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Latent frames in pieces, each loaded when a part of it is read.

    Attributes:
        pieces: What loads ``(C, F, H, W)``, and how many frames these are.
    """

    pieces: Sequence[tuple[Callable[[], Tensor], int]]

    def read(self, first: int, last: int) -> Tensor:
        """Latent frames from ``first`` on, as many of those before ``last`` as there are."""
        parts = []
        begin = 0
        for load, length in self.pieces:
            if begin < last and first < begin + length:
                parts.append(load()[:, max(0, first - begin) : last - begin])
            begin += length
        return torch.cat(parts, dim=1)


def _known(latents: Tensor | None) -> list[tuple[Callable[[], Tensor], int]]:
    return [] if latents is None else [(lambda: latents, latents.shape[1])]


def _latents(stretch: Stretch, store: ChunkStore) -> Tensor:
    done = store.load(stretch.chunk.index)
    assert done is not None, "chunks are joined when all are rendered"
    assert done.latents.video is not None, "chains have pictures"
    return done.latents.video[:, stretch.start : stretch.stop]


def forward_stretches(
    chunks: Sequence[Chunk], overlap: int, time_factor: int, beside: Neighbours
) -> list[Stretch]:
    """Stretches of chunks that follow each other.

    Args:
        chunks: In the order of rendering.
        overlap: Latent frames that each handed to the next.
        time_factor: Pixel frames per latent frame.
        beside: What comes before; without it, the first chunk is there as a whole.
    """
    stretches: list[Stretch] = []
    frames = 0 if beside.before is None else time_factor * (beside.before.shape[1] - 1) + 1
    for chunk in chunks:
        length = (chunk.request.num_frames - 1) // time_factor + 1
        start = overlap if frames else 0
        # Frame of the sequence that the chunk's first one would be.
        origin = frames - (time_factor * (start - 1) + 1) if frames else 0
        shown = (origin + chunk.skip, origin + chunk.skip + chunk.keep)
        stretches.append(Stretch(chunk, start, length, shown))
        frames = origin + chunk.request.num_frames
    return stretches


def backward_stretches(
    chunks: Sequence[Chunk], overlap: int, time_factor: int, beside: Neighbours
) -> list[Stretch]:
    """Stretches of chunks that were rendered from the last to the first, in the order of time.

    The single first frame of a chunk is the last one of a latent frame of the chunk before it.

    Args:
        chunks: In the order of rendering.
        overlap: Latent frames that each handed to the next.
        time_factor: Pixel frames per latent frame.
        beside: What comes after; without it, the last stretch goes to the end of its chunk.
    """
    stretches: list[Stretch] = []
    frames = 0
    for place, chunk in enumerate(reversed(chunks)):
        length = (chunk.request.num_frames - 1) // time_factor + 1
        alone = place == len(chunks) - 1 and beside.after is None
        stop = length if alone else length - overlap
        shown = (frames + chunk.skip, frames + chunk.skip + chunk.keep)
        stretches.append(Stretch(chunk, min(place, 1), stop, shown))
        frames = shown[1]
    return stretches
