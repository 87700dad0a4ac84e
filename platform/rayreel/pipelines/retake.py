"""A stretch of a finished video made anew; the rest of it stays as it is."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import Retake
from rayreel.config.request import RenderRequest
from rayreel.diffusion.patchifiers import audio_positions, video_positions
from rayreel.errors import MediaError
from rayreel.media.audio import read_soundtrack
from rayreel.media.container import probe
from rayreel.media.video import stream_frames
from rayreel.models.audio_vae import resample, to_stereo
from rayreel.pipelines import conditions
from rayreel.pipelines.base import Fault, Pipeline, PipelineTraits
from rayreel.pipelines.inputs import (
    EncodedRequest,
    encodable,
    encode_frames,
    encode_sound,
)
from rayreel.pipelines.phases import Phase
from rayreel.pipelines.states import audio_target, video_target
from rayreel.types import Audio, ClipStream, Latents

FADE_S = 0.01
"""Length of the crossfade between old and new sound."""


class RetakeVideo(Pipeline):
    """Latents of the stretch are generated beside the others, which are kept.

    What is written outside the stretch are the video's own frames and samples: not even the round
    trip through the VAE changes them.
    """

    traits = PipelineTraits(
        stages=1, guided=False, uses=("distilled_lora",), asks=("retake",), takes=()
    )
    video_conditions = (conditions.retaken_video,) * 2

    @classmethod
    def guided(cls, request: RenderRequest) -> bool:
        """As the request says: by distilled weights or by guidance."""
        return _retake(request).guided

    @classmethod
    def faults(cls, request: RenderRequest, files: ModelFiles) -> list[Fault]:
        """A picture alone has no stretch."""
        if request.num_frames > files.factors.time:
            return []
        said = f"has {request.num_frames} frame; expected at least {files.factors.time + 1}"
        return [("retake.path", said)]

    def first_phase(self, request: RenderRequest) -> Phase:
        """At the video's size; sound that the video does not have is made from nothing."""
        phase = super().first_phase(request)
        audio = conditions.retaken_audio if _has_sound(request) else phase.audio
        return replace(phase, audio=audio)

    def start(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """The whole video."""
        return [self._encoded(encoded.request) for encoded in batch]

    def decode(self, request: RenderRequest, latents: Latents) -> ClipStream:
        """The video with the stretch put in."""
        retake = _retake(request)
        # Sound that is kept need not be decoded.
        made = super().decode(request, latents if retake.audio else replace(latents, audio=None))
        frames = self._spliced(request, made.frames)
        if not retake.video:
            made.frames.close()
            frames = stream_frames(retake.path)
        if not request.audio or not _has_sound(request):
            return replace(made, frames=frames)
        sound = _own_sound(request)
        if retake.audio:
            assert isinstance(made.audio, Audio), "a clip of one piece has its sound whole"
            sound = self._mixed(request, sound, made.audio)
        return replace(made, frames=frames, audio=sound)

    def _encoded(self, request: RenderRequest) -> Latents:
        path = _retake(request).path
        frames = stream_frames(path, stop=request.num_frames)
        video = encode_frames(self.ledger, frames, (request.height, request.width))[0]
        if not request.audio or not _has_sound(request):
            return Latents(video=video, audio=None)
        tokens = audio_target(self.ledger, request).tokens
        own = _own_sound(request)
        # It may stop before the last frame does.
        whole = _lasting(own.waveform, round(request.duration_s * own.sample_rate_hz))
        sound = encode_sound(self.ledger, replace(own, waveform=whole), tokens)
        return Latents(video=video, audio=sound[0])

    def _spliced(
        self, request: RenderRequest, made: Generator[Tensor, None, None]
    ) -> Generator[Tensor, None, None]:
        """New frames in the stretch, the video's own outside."""
        first, last = self._new_frames(request)
        position = 0
        with closing(made), closing(stream_frames(_retake(request).path, chunk=1)) as old:
            for chunk in made:
                theirs = torch.cat(list(islice(old, len(chunk))))
                if len(theirs) < len(chunk):
                    raise MediaError(
                        f"{_retake(request).path} ends after {position + len(theirs)} frames; its "
                        f"header says {request.num_frames}"
                    )
                index = torch.arange(position, position + len(chunk))[:, None, None, None]
                yield torch.where((first <= index) & (index < last), chunk, theirs)
                position += len(chunk)

    def _new_frames(self, request: RenderRequest) -> tuple[int, int]:
        """Pixel frames that belong to the latents of the stretch, the end excluded."""
        retake, target = _retake(request), video_target(self.ledger, request, 1)
        line = replace(target.shape, height=1, width=1)
        positions = video_positions(line, fps=target.fps, factors=target.factors)
        start, end = _overlapping(positions, retake)
        return round(start * request.fps), round(end * request.fps)

    def _mixed(self, request: RenderRequest, old: Audio, new: Audio) -> Audio:
        """New samples in the stretch, faded into the old ones outside."""
        target, rate = audio_target(self.ledger, request), old.sample_rate_hz
        positions = audio_positions(
            target.shape,
            sample_rate_hz=target.sample_rate_hz,
            hop_length=target.hop_length,
            downsample=target.downsample,
        )
        start, end = _overlapping(positions, _retake(request))
        first, last = round(start * rate), round(end * rate)
        if first == last:
            return old
        length = max(old.waveform.shape[1], last)
        made = _lasting(resample(new.waveform, new.sample_rate_hz, rate), length)[:, :length]
        inside = torch.arange(length)
        fade = max(1, round(FADE_S * rate))
        weight = torch.minimum(inside - first, last - 1 - inside).div(fade).clamp(0, 1)
        if first == 0:
            weight = ((last - 1 - inside) / fade).clamp(0, 1)
        return replace(old, waveform=torch.lerp(_lasting(old.waveform, length), made, weight))


def _overlapping(positions: Tensor, retake: Retake) -> tuple[float, float]:
    """Start and end in seconds of all tokens that overlap the stretch; the same if none does."""
    start, end = positions[0, 0].unbind(-1)
    inside = (end > retake.start_s) & (start < retake.end_s)
    if not inside.any():
        # Sound ends some hundredths of a second before its last frame does.
        return retake.start_s, retake.start_s
    return float(start[inside].min()), float(end[inside].max())


def _own_sound(request: RenderRequest) -> Audio:
    """The video's sound in stereo, as long as it is."""
    read = read_soundtrack(_retake(request).path, start_s=0, duration_s=request.duration_s)
    return encodable(replace(read, waveform=to_stereo(read.waveform)))


def _lasting(waveform: Tensor, samples: int) -> Tensor:
    """``(2, N)`` with silence behind it where it has fewer samples."""
    return F.pad(waveform, (0, max(0, samples - waveform.shape[1])))


def _retake(request: RenderRequest) -> Retake:
    assert request.retake is not None, "requests of this pipeline have one"
    return request.retake


def _has_sound(request: RenderRequest) -> bool:
    return probe(_retake(request).path).has_audio
