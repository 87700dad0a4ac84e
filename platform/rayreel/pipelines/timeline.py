"""The latents of a long clip as one sequence, of which any stretch can be read.

Chunks overlap: what one handed to the next is in it once. Decoded with its neighbours on both
sides, a stretch looks as it would in a decode of the whole, so there is nothing to see of a joint.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
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


def decode_stretches(
    decode: Decoder, stretches: Sequence[Stretch], store: ChunkStore, time_factor: int
) -> Generator[Tensor, None, None]:
    """Frames of the stretches one after the other, RGB ``uint8`` ``(F, H, W, 3)``.

    Args:
        decode: Of the pipeline that rendered the chunks.
        stretches: In the order of time.
        store: Of the chunks.
        time_factor: Pixel frames per latent frame.
    """
    ends = list(accumulate(stretch.stop - stretch.start for stretch in stretches))
    for index, stretch in enumerate(stretches):
        begin = ends[index] - (stretch.stop - stretch.start)
        first, last = max(0, begin - CONTEXT), min(ends[-1], ends[index] + CONTEXT)
        latents = Latents(video=_read(stretches, ends, store, first, last), audio=None)
        # The first latent frame of a window stands for the last frame of those that it covers.
        position = time_factor * first
        with closing(decode(stretch.chunk.request, latents).frames) as chunks:
            for chunk in chunks:
                start, stop = (max(0, edge - position) for edge in stretch.shown)
                position += len(chunk)
                if start < min(stop, len(chunk)):
                    yield chunk[start:stop]
                if position >= stretch.shown[1]:
                    break


def _read(
    stretches: Sequence[Stretch], ends: Sequence[int], store: ChunkStore, first: int, last: int
) -> Tensor:
    """Latent frames ``first`` to ``last`` of the sequence, ``(C, F, H, W)``."""
    parts = []
    for stretch, end in zip(stretches, ends, strict=True):
        begin = end - (stretch.stop - stretch.start)
        if begin < last and first < end:
            done = store.load(stretch.chunk.index)
            assert done is not None, "chunks are joined when all are rendered"
            assert done.latents.video is not None, "chains have pictures"
            shift = stretch.start - begin
            parts.append(done.latents.video[:, max(first, begin) + shift : min(last, end) + shift])
    return torch.cat(parts, dim=1)


def forward_stretches(chunks: Sequence[Chunk], overlap: int, time_factor: int) -> list[Stretch]:
    """Stretches of chunks that follow each other, the first one whole.

    Args:
        chunks: In the order of rendering.
        overlap: Latent frames that each handed to the next.
        time_factor: Pixel frames per latent frame.
    """
    stretches: list[Stretch] = []
    frames = 0
    for chunk in chunks:
        length = (chunk.request.num_frames - 1) // time_factor + 1
        start = overlap if stretches else 0
        # Frame of the sequence that the chunk's first one would be.
        origin = frames - (time_factor * (start - 1) + 1) if stretches else 0
        shown = (origin + chunk.skip, origin + chunk.skip + chunk.keep)
        stretches.append(Stretch(chunk, start, length, shown))
        frames = origin + chunk.request.num_frames
    return stretches


def backward_stretches(chunks: Sequence[Chunk], overlap: int, time_factor: int) -> list[Stretch]:
    """Stretches of chunks that were rendered from the last to the first, in the order of time.

    The single first frame of a chunk is the last one of a latent frame of the chunk before it.
    Arguments as of ``forward_stretches``.
    """
    stretches: list[Stretch] = []
    frames = 0
    for place, chunk in enumerate(reversed(chunks)):
        length = (chunk.request.num_frames - 1) // time_factor + 1
        last = place == len(chunks) - 1
        stop = length if last else length - overlap
        shown = (frames + chunk.skip, frames + chunk.skip + chunk.keep)
        stretches.append(Stretch(chunk, min(place, 1), stop, shown))
        frames = shown[1]
    return stretches
