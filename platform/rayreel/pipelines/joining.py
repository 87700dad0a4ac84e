"""The chunks of a long clip as one clip: frames end to end, sound faded from one to the next."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.media.audio import read_soundtrack
from rayreel.media.container import MediaInfo, probe
from rayreel.media.joining import crossfaded
from rayreel.media.video import stream_frames
from rayreel.models.audio_vae import resample, to_stereo
from rayreel.pipelines.chain import ChunkStore
from rayreel.pipelines.chunks import (
    Chunk,
    is_backward,
    plan_chunks,
    read_latents,
    shared_sound,
)
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.timeline import (
    CONTEXT,
    Neighbours,
    backward_stretches,
    decode_stretches,
    forward_stretches,
)
from rayreel.types import Audio, ClipStream, Latents, SoundStream

FADE_S = 0.01
"""Length of the crossfade at a joint, and of the end of a sound that none follows."""

_BEYOND = 2
"""Latent frames of sound that a chunk is decoded with behind its own: up to the joint and more."""


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
    beside = neighbours(request)
    order = backward_stretches if backward else forward_stretches
    stretches = order(chunks, overlap, time, beside)
    frames = decode_stretches(pipeline.decode, stretches, store, time, beside)
    parts: list[_Part] = [
        _Rendered(pipeline, request, store, stretch.chunk, after.chunk if after else None)
        for stretch, after in zip(stretches, [*stretches[1:], None], strict=True)
    ]
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


def neighbours(request: RenderRequest) -> Neighbours:
    """Latents of the clip that is made longer, as far as its run kept them."""
    if request.extend is None or request.extend.latents is None:
        return Neighbours()
    video = read_latents(request.extend.latents).video
    assert video is not None, "clips that are extended have pictures"
    if is_backward(request):
        return Neighbours(after=video[:, 1 : 1 + CONTEXT])
    return Neighbours(before=video[:, -CONTEXT:])


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
    whole: RenderRequest
    store: ChunkStore
    chunk: Chunk
    after: Chunk | None

    @property
    def skip(self) -> int:
        return self.chunk.skip

    @property
    def keep(self) -> int:
        return self.chunk.keep

    def sound(self) -> Tensor:
        latents = self._latents(self.chunk)
        if self.after:
            # Sound ends before the last frame does, and so before the joint.
            shared = shared_sound(
                self.pipeline.ledger.files,
                self.whole.chain,
                self.chunk.request,
                backward=is_backward(self.whole),
            )
            beyond = self._latents(self.after)[:, shared : shared + _BEYOND]
            latents = torch.cat([latents, beyond], dim=1)
        alone = Latents(video=None, audio=latents)
        audio = self.pipeline.decode(self.chunk.request, alone).audio
        assert isinstance(audio, Audio), "a chunk has its sound whole"
        return audio.waveform

    def _latents(self, chunk: Chunk) -> Tensor:
        done = self.store.load(chunk.index)
        assert done is not None, "chunks are joined when all are rendered"
        assert done.latents.audio is not None, "all chunks of a clip with sound have some"
        return done.latents.audio


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

    A joint lies where the next part is first shown, or as close to it as both sounds reach.
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
            end = max(min(shown, offset + waveform.shape[1]), least)
        if (missing := end - offset - waveform.shape[1]) > 0:
            waveform = F.pad(_faded_out(waveform, fade), (0, missing))
        yield waveform[:, begin - offset : end - offset]
        begin = end - fade


def _faded_out(waveform: Tensor, fade: int) -> Tensor:
    """The same sound, ending in silence."""
    weights = torch.ones(waveform.shape[1])
    last = min(fade, len(weights))
    weights[len(weights) - last :] = torch.linspace(1, 0, last + 2)[1:-1]
    return waveform * weights
