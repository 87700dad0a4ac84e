"""A clip as a file: what kind of file a request becomes, and how it is written."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from rayreel.config.request import RenderRequest
from rayreel.media.image import write_image
from rayreel.media.mux import write_clip
from rayreel.media.sound import write_sound
from rayreel.types import ClipStream

Seen = Callable[[Tensor], object]


def suffix_of(request: RenderRequest) -> str:
    """Ending of the file that a request becomes: ``mp4``, ``png``, ``wav`` or ``m4a``."""
    if not request.video:
        return request.audio_format
    return "png" if request.num_frames == 1 and request.extend is None else "mp4"


def write_output(
    path: Path, request: RenderRequest, clip: ClipStream, seen: Seen = lambda _: None
) -> None:
    """Write a clip as its request wants it.

    Args:
        path: Of the file.
        request: Says which kind, and in which quality.
        clip: Read to its end.
        seen: Given what is written: chunks of frames, or the waveform of sound alone.
    """
    if not request.video:
        sound = clip.collect().audio
        assert sound is not None, "a clip without a picture has sound"
        seen(sound.waveform)
        write_sound(path, sound, format=request.audio_format)
        return
    shown = replace(clip, frames=_shown(clip.frames, seen))
    if clip.num_frames == 1:
        write_image(path, shown.collect().frames[0])
    else:
        write_clip(path, shown, crf=request.crf)


def _shown(chunks: Generator[Tensor, None, None], seen: Seen) -> Generator[Tensor, None, None]:
    """Pass chunks on, showing them on the way."""
    with closing(chunks):
        for chunk in chunks:
            seen(chunk)
            yield chunk
