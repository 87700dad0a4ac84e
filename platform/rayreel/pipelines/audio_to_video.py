"""A picture for a given sound, which the clip keeps as it is."""

from collections.abc import Sequence
from dataclasses import replace

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.errors import MediaError
from rayreel.media.audio import read_soundtrack
from rayreel.models.audio_vae import to_stereo
from rayreel.pipelines import conditions
from rayreel.pipelines.base import Defaults, Fault
from rayreel.pipelines.inputs import EncodedRequest, encodable, encode_sound
from rayreel.pipelines.states import audio_target
from rayreel.pipelines.two_stage import TwoStage
from rayreel.types import Audio, ClipStream, Latents


class AudioToVideo(TwoStage):
    """The sound's latents are frozen in both stages, and only the picture is guided."""

    traits = replace(TwoStage.traits, asks=("soundtrack",), takes=("images",))
    audio_conditions = (conditions.kept,) * 2

    @classmethod
    def defaults(cls, files: ModelFiles) -> Defaults:
        """No guidance of a sound that does not change."""
        return replace(super().defaults(files), audio=Guidance())

    @classmethod
    def faults(cls, request: RenderRequest, files: ModelFiles) -> list[Fault]:
        """Sound that cannot be read, or is shorter than the clip."""
        time, rate = files.factors.time, files.audio_vae.latents_per_second
        if request.num_frames <= time:
            said = f"{request.num_frames} frames are too few for a sound; nearest is {time + 1}"
            return [("num_frames", said)]
        try:
            sound = _sound(request)
        except MediaError as error:
            return [("soundtrack.path", str(error))]
        seconds = sound.waveform.shape[1] / sound.sample_rate_hz
        # What encoding makes up for is less than a latent frame.
        if seconds >= request.duration_s - 1 / rate:
            return []
        frames = max(0, int(seconds * request.fps) - 1) // time * time + 1
        return [
            (
                "soundtrack",
                f"{seconds:.2f} s of sound are too short for {request.num_frames} frames, "
                f"{request.duration_s:.2f} s; nearest num_frames is {frames}",
            )
        ]

    def start(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """The sound of each request."""
        return [self._encoded(encoded.request) for encoded in batch]

    def decode(self, request: RenderRequest, latents: Latents) -> ClipStream:
        """The picture with the sound that it was made for."""
        silent = super().decode(request, replace(latents, audio=None))
        return replace(silent, audio=_sound(request))

    def _encoded(self, request: RenderRequest) -> Latents:
        frames = audio_target(self.ledger, request).tokens
        return Latents(video=None, audio=encode_sound(self.ledger, _sound(request), frames)[0])


def _sound(request: RenderRequest) -> Audio:
    """The part of the file that the clip takes, in stereo."""
    track = request.soundtrack
    assert track is not None, "requests of this pipeline have one"
    duration_s = min(request.duration_s, track.duration_s or request.duration_s)
    audio = read_soundtrack(track.path, start_s=track.start_s, duration_s=duration_s)
    return encodable(replace(audio, waveform=to_stereo(audio.waveform)))
