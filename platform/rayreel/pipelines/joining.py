"""The chunks of a long clip as one clip: frames end to end, sound faded from one to the next."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.media.audio import read_soundtrack
from rayreel.media.container import MediaInfo, probe
from rayreel.media.joining import crossfaded
from rayreel.media.video import stream_frames
from rayreel.models.audio_vae import resample, to_stereo
from rayreel.pipelines.chain import ChunkStore
from rayreel.pipelines.chunks import Chunk, is_backward, plan_chunks
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.timeline import backward_stretches, decode_stretches, forward_stretches
from rayreel.types import Audio, ClipStream, Latents, SoundStream

FADE_S = 0.01
"""Length of the crossfade at a joint."""


class DecodingPipeline(Protocol):
    """What joining asks of the pipeline that rendered the chunks."""

    ledger: ModelLedger

    def decode(self, request: RenderRequest, latents: Latents) -> ClipStream:
        """Latents to frames and sound."""


def join_chunks(
    pipeline: DecodingPipeline, request: RenderRequest, store: ChunkStore
) -> ClipStream:
    """Decode the chunks of a chained request, a window at a time and when they are read.

    Args:
        pipeline: Decodes latents.
        request: Resolved; all of its chunks are in the store.
        store: Of this clip.

    Returns:
        Exactly as many frames as were asked for, with those of the clip that is made longer; and
        sound that lasts as long to the sample.
    """
    files, overlap = pipeline.ledger.files, request.chain.overlap
    time, rate = files.factors.time, files.vocoder.sample_rate_hz if request.audio else 0
    chunks = plan_chunks(request, time)
    backward = is_backward(request)
    stretches = (backward_stretches if backward else forward_stretches)(chunks, overlap, time)
    frames = decode_stretches(pipeline.decode, stretches, store, time)
    parts: list[_Part] = [_Rendered(pipeline, store, stretch.chunk) for stretch in stretches]
    if request.extend:
        assert request.extend.path is not None, "clips of runs are located before"
        source = _Source(request.extend.path, probe(request.extend.path), rate)
        theirs = stream_frames(source.path)
        frames = _end_to_end(frames, theirs) if backward else _end_to_end(theirs, frames)
        parts = [*parts, source] if backward else [source, *parts]
    num_frames = sum(part.keep for part in parts)
    if not request.audio:
        return ClipStream(frames=frames, num_frames=num_frames, fps=request.fps)
    num_samples = round(num_frames * rate / request.fps)
    pieces = _pieces(parts, rate, request.fps, num_samples)
    sound = SoundStream(
        chunks=crossfaded(pieces, _fade(rate)), num_samples=num_samples, sample_rate_hz=rate
    )
    return ClipStream(frames=frames, num_frames=num_frames, fps=request.fps, audio=sound)


class _Part(Protocol):
    """What a stretch of the clip sounds like, and which of its frames are shown."""

    @property
    def skip(self) -> int:
        """Frames before those that are shown."""

    @property
    def keep(self) -> int:
        """Frames that are shown."""

    def sound(self) -> Tensor:
        """From its first frame on, shown or not: ``(2, samples)``."""


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

    def sound(self) -> Tensor:
        done = self.store.load(self.chunk.index)
        assert done is not None, "chunks are joined when all are rendered"
        audio = self.pipeline.decode(self.chunk.request, replace(done.latents, video=None)).audio
        assert isinstance(audio, Audio), "a chunk has its sound whole"
        return audio.waveform


@dataclass(frozen=True)
class _Source:
    """The clip that is made longer."""

    path: str
    info: MediaInfo
    rate: int

    @property
    def skip(self) -> int:
        return 0

    @property
    def keep(self) -> int:
        return self.info.num_frames

    def sound(self) -> Tensor:
        audio = read_soundtrack(self.path, start_s=0, duration_s=self.keep / self.info.fps)
        return resample(to_stereo(audio.waveform), audio.sample_rate_hz, self.rate)


def _end_to_end(*streams: Generator[Tensor, None, None]) -> Generator[Tensor, None, None]:
    """Streams one after the other; all of them are closed with it."""
    try:
        for stream in streams:
            yield from stream
    finally:
        for stream in streams:
            stream.close()


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
    # Frame of the clip at which each part is first shown.
    starts = [0, *accumulate(part.keep for part in parts)]
    begin = 0
    for index, part in enumerate(parts):
        waveform = part.sound()
        # Where the part's own sound starts in the clip.
        offset = round((starts[index] - part.skip) * rate / fps)
        end = num_samples
        if index + 1 < len(parts):
            shown = round(starts[index + 1] * rate / fps)
            least = round((starts[index + 1] - parts[index + 1].skip) * rate / fps) + fade
            end = max(min(shown, offset + waveform.shape[1]), least, begin + fade)
        missing = max(0, end - offset - waveform.shape[1])
        yield F.pad(waveform, (0, missing))[:, begin - offset : end - offset]
        begin = end - fade
