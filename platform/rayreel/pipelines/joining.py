"""The chunks of a long clip as one clip: frames end to end, sound faded from one to the next."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.media.audio import read_soundtrack
from rayreel.media.container import probe
from rayreel.media.joining import crossfaded
from rayreel.media.video import stream_frames
from rayreel.models.audio_vae import resample, to_stereo
from rayreel.pipelines.chain import ChunkStore
from rayreel.pipelines.chunks import Chunk, plan_chunks
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import Audio, ClipStream, Latents, SoundStream

FADE_S = 0.01
"""Length of the crossfade at a joint."""


class DecodingPipeline(Protocol):
    """What joining asks of the pipeline that rendered the chunks."""

    ledger: ModelLedger

    def decode(self, request: RenderRequest, latents: Latents) -> ClipStream:
        """Latents to frames and sound."""


class _Part(Protocol):
    """A stretch of the clip.

    Attributes:
        skip: Frames before those that are shown.
        keep: Frames that are shown.
    """

    @property
    def skip(self) -> int: ...

    @property
    def keep(self) -> int: ...

    def frames(self) -> Generator[Tensor, None, None]: ...

    def sound(self) -> Tensor: ...


def join_chunks(
    pipeline: DecodingPipeline, request: RenderRequest, store: ChunkStore
) -> ClipStream:
    """Decode the chunks of a chained request, one at a time and when they are read.

    Args:
        pipeline: Decodes single chunks.
        request: Resolved; all of its chunks are in the store.
        store: Of this clip.

    Returns:
        Exactly as many frames as were asked for, with those of the clip that is made longer; and
        sound that lasts as long to the sample.
    """
    files = pipeline.ledger.files
    parts: list[_Part] = [
        _Rendered(pipeline, store, chunk) for chunk in plan_chunks(request, files.factors.time)
    ]
    rate = files.vocoder.sample_rate_hz if request.audio else 0
    if request.extend:
        assert request.extend.path is not None, "clips of runs are located before"
        source = _Source(request.extend.path, rate)
        backward = request.extend.direction == "backward"
        parts = [*reversed(parts), source] if backward else [source, *parts]
    num_frames = sum(part.keep for part in parts)
    sound = None
    if request.audio:
        num_samples = round(num_frames * rate / request.fps)
        pieces = _pieces(parts, rate, request.fps, num_samples)
        sound = SoundStream(
            chunks=crossfaded(pieces, _fade(rate)), num_samples=num_samples, sample_rate_hz=rate
        )
    return ClipStream(frames=_frames(parts), num_frames=num_frames, fps=request.fps, audio=sound)


@dataclass(frozen=True)
class _Rendered:
    """A chunk that was rendered."""

    pipeline: DecodingPipeline
    store: ChunkStore
    chunk: Chunk

    @property
    def skip(self) -> int:
        return self.chunk.skip

    @property
    def keep(self) -> int:
        return self.chunk.keep

    def frames(self) -> Generator[Tensor, None, None]:
        return self.pipeline.decode(self.chunk.request, replace(self._latents, audio=None)).frames

    def sound(self) -> Tensor:
        audio = self.pipeline.decode(self.chunk.request, replace(self._latents, video=None)).audio
        assert isinstance(audio, Audio), "a chunk has its sound whole"
        return audio.waveform

    @property
    def _latents(self) -> Latents:
        done = self.store.load(self.chunk.index)
        assert done is not None, "chunks are joined when all are rendered"
        return done.latents


@dataclass(frozen=True)
class _Source:
    """The clip that is made longer."""

    path: str
    rate: int

    @property
    def skip(self) -> int:
        return 0

    @property
    def keep(self) -> int:
        return probe(self.path).num_frames

    def frames(self) -> Generator[Tensor, None, None]:
        return stream_frames(self.path)

    def sound(self) -> Tensor:
        info = probe(self.path)
        audio = read_soundtrack(self.path, start_s=0, duration_s=info.num_frames / info.fps)
        return resample(to_stereo(audio.waveform), audio.sample_rate_hz, self.rate)


def _frames(parts: Sequence[_Part]) -> Generator[Tensor, None, None]:
    for part in parts:
        first, last, position = part.skip, part.skip + part.keep, 0
        with closing(part.frames()) as chunks:
            for chunk in chunks:
                shown = chunk[max(0, first - position) : max(0, last - position)]
                position += len(chunk)
                if len(shown):
                    yield shown
                if position >= last:
                    break


def _fade(rate: int) -> int:
    return round(FADE_S * rate)


def _pieces(
    parts: Sequence[_Part], rate: int, fps: float, num_samples: int
) -> Generator[Tensor, None, None]:
    """The sound of each part from joint to joint, overlapping by the fade.

    A joint lies where the next part is first shown, or as close to it as both sounds reach: sound
    ends some hundredths of a second before its frames do.
    """
    fade = _fade(rate)
    starts = _starts(parts)
    begin = 0
    for index, part in enumerate(parts):
        waveform = part.sound()
        # Where the part's own sound starts in the clip.
        offset = round((starts[index] - part.skip) * rate / fps)
        end = num_samples
        if index + 1 < len(parts):
            shown = round(starts[index + 1] * rate / fps)
            least = round((starts[index + 1] - parts[index + 1].skip) * rate / fps) + fade
            end = max(min(shown, offset + waveform.shape[1]), least)
        missing = max(0, end - offset - waveform.shape[1])
        yield F.pad(waveform, (0, missing))[:, begin - offset : end - offset]
        begin = end - fade


def _starts(parts: Sequence[_Part]) -> list[int]:
    """Frame of the clip at which each part is first shown."""
    ends = torch.tensor([0, *(part.keep for part in parts)]).cumsum(0)
    return [int(end) for end in ends[:-1]]
