"""What the files of a request say of it: size, length and rate of a video, length of a sound."""

from dataclasses import dataclass, field
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.errors import MediaError
from rayreel.media.container import probe
from rayreel.pipelines.chunks import frames_to_go_on_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """A request with its size and length known.

    Attributes:
        request: Its ``seconds`` are ``num_frames`` now.
        notes: What of it changed on the way, and why.
    """

    request: RenderRequest
    notes: list[str] = field(default_factory=list)


def read_sources(request: RenderRequest, files: ModelFiles) -> Sourced:
    """Fill in what follows from the video that is retaken or made longer, and from a soundtrack.

    Args:
        request: Its files can be read.
        files: The model that will render it.

    Raises:
        MediaError: If a file is not what it must be.
    """
    notes: list[str] = []
    values: dict[str, Any] = {}
    video = request.retake or request.extend
    if video:
        assert video.path is not None, "clips of runs are located before"
        info = probe(video.path)
        values = {"width": info.width, "height": info.height, "fps": info.fps}
        if request.extend and info.num_frames < (least := frames_to_go_on_from(request, files)):
            raise MediaError(
                f"{video.path} has {info.num_frames} frames; expected at least {least} to hand "
                f"{request.chain.overlap} latent frames on (chain.overlap)"
            )
        makes_sound = request.retake is not None and request.retake.audio
        if request.audio and not info.has_audio and not makes_sound:
            values["audio"] = False
            notes.append("the clip is silent, since its video is")
        if request.retake:
            values |= {"num_frames": info.num_frames, "seconds": None}
            return Sourced(request=request.model_copy(update=values), notes=notes)
    request = request.model_copy(update=values)
    if frames := _frames(request, files.factors.time):
        request = request.model_copy(update={"num_frames": frames, "seconds": None})
    still = request.num_frames == 1 and request.video
    if still and not (request.extend or request.soundtrack):
        # A picture, which has no sound.
        request = request.model_copy(update={"audio": False})
    return Sourced(request=request, notes=notes)


def _frames(request: RenderRequest, time_factor: int) -> int | None:
    """Frames of a request that states its length in seconds, or has it from its soundtrack."""
    track = request.soundtrack
    if request.seconds is not None:
        frames = request.seconds * request.fps
        if request.extend or not request.video:
            # What is added to a clip, and sound alone, may have any length.
            return max(1, round(frames))
        return max(1, time_factor * round((frames - 1) / time_factor) + 1)
    if track and track.duration_s is not None and "num_frames" not in request.model_fields_set:
        # No longer than the sound.
        frames = track.duration_s * request.fps
        return max(1, time_factor * int((frames - 1) // time_factor) + 1)
    return None
