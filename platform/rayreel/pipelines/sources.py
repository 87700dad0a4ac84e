"""What the files of a request say of it: size, length and rate of a video, length of a sound."""

from dataclasses import dataclass, field
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.media.container import probe


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
        makes_sound = request.retake is not None and request.retake.audio
        if request.audio and not info.has_audio and not makes_sound:
            values["audio"] = False
            notes.append("the clip is silent, since its video is")
        if request.retake:
            values |= {"num_frames": info.num_frames, "seconds": None}
            return Sourced(request=request.model_copy(update=values), notes=notes)
    request = request.model_copy(update=values)
    seconds = request.seconds
    if request.soundtrack and seconds is None and "num_frames" not in request.model_fields_set:
        seconds = request.soundtrack.duration_s
    if seconds is not None:
        frames = seconds * request.fps
        time = files.factors.time
        # What is added to a clip, and sound alone, may have any length.
        any_length = request.extend is not None or not request.video
        whole = round(frames) if any_length else time * round((frames - 1) / time) + 1
        values = {"num_frames": max(1, whole), "seconds": None}
        request = request.model_copy(update=values)
    return Sourced(request=request, notes=notes)
