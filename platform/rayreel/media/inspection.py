"""Files of strangers: told by their content, and decoded once by a process that may be killed.

``python -m rayreel.media.inspection FILE LIMITS CHECK_S`` is that process; its limits are JSON. It
imports neither torch nor Ray, and reads files with the functions that stages read them with: what
passes here is read there.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.stream import Stream

from rayreel.errors import MediaError
from rayreel.media.container import moving_stream, open_media, sound_stream
from rayreel.media.orientation import upright_size
from rayreel.media.pieces import sound_pieces, sound_starts_at
from rayreel.media.shown import shown_frames
from rayreel.media.still import decode_still
from rayreel.media.timing import timing_of

FileType = Literal["png", "jpg", "webp", "mp4", "mkv", "wav", "mp3", "flac", "ogg"]

HEAD_BYTES = 16
"""From the start of a file, which tell what it is."""

MAX_CHANNELS = 8
MAX_RATE_HZ = 192_000

STILLS: dict[FileType, str] = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
CONTAINERS: dict[FileType, str] = {
    "mp4": "mov,mp4,m4a,3gp,3g2,mj2",
    "mkv": "matroska,webm",
    "wav": "wav",
    "mp3": "mp3",
    "flac": "flac",
    "ogg": "ogg",
}
"""Formats besides stills, as ffmpeg calls them."""

CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9"),
    *("mpeg4", "mjpeg", "prores", "ffv1", "png"),
    *("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac", "alac"),
    *("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le"),
)
"""Decoders that see what strangers send; ffmpeg has hundreds more, that few have looked at."""

_EXPECTED = (
    "expected PNG, JPEG or WebP; MP4, MOV, WebM or MKV; WAV, MP3, FLAC, Ogg or M4A, by its content"
)
_SPARE_BYTES = 2 * 2**30
_BYTES_PER_PIXEL = 64
_ANSWER_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a file may be like at most.

    Attributes:
        max_pixels: Of an image or a frame.
        max_frames: Of a video.
        max_video_pixels: Of all frames of a video.
        max_seconds: Of a video or a sound.
    """

    max_pixels: int
    max_frames: int
    max_video_pixels: int
    max_seconds: float

    @property
    def memory_bytes(self) -> int:
        """Address space for looking at a file: a decoder holds some 16 frames."""
        return _SPARE_BYTES + _BYTES_PER_PIXEL * self.max_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a file is, once all of it was decoded.

    Attributes:
        kind: By its content; a file with a picture and sound is a video.
        has_sound: Whether there is any.
        width: Of the upright picture; 0 for sound alone.
        height: Of the upright picture; 0 for sound alone.
        num_frames: At a constant rate; 0 for sound alone.
        seconds: Of the picture, or of sound alone; 0 for an image.
    """

    kind: Literal["image", "video", "audio"]
    has_sound: bool = False
    width: int = 0
    height: int = 0
    num_frames: int = 0
    seconds: float = 0.0


def file_type(head: bytes) -> FileType:
    """What a file is, by its first ``HEAD_BYTES``; names and stated types say nothing.

    Raises:
        MediaError: If it is nothing that is taken. Playlists and lists of files never are.
    """
    starts: dict[bytes, FileType] = {
        b"\x89PNG\r\n\x1a\n": "png",
        b"\xff\xd8\xff": "jpg",
        b"\x1a\x45\xdf\xa3": "mkv",
        b"fLaC": "flac",
        b"OggS": "ogg",
        b"ID3": "mp3",
    }
    for start, found in starts.items():
        if head.startswith(start):
            return found
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP"):
        return "wav" if head[8:12] == b"WAVE" else "webp"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mp4"
    # Eleven bits that are set, and the third layer.
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:
        return "mp3"
    if not head:
        raise MediaError(f"the file is empty; {_EXPECTED}")
    raise MediaError(f"the file begins with {head[:8].hex(' ')}; {_EXPECTED}")


def inspect(path: Path, limits: Limits) -> Inspected:
    """Decode a file from start to end, unless it goes beyond a limit.

    Raises:
        MediaError: If it is nothing that is taken, is damaged, or is larger than allowed.
    """
    with path.open("rb") as file:
        found = file_type(file.read(HEAD_BYTES))
    if found in STILLS:
        # Of an image with several pictures, the first is taken.
        pixels = decode_still(path, max_pixels=limits.max_pixels, formats=(STILLS[found],))
        height, width = pixels.shape[:2]
        return Inspected(kind="image", width=width, height=height, num_frames=1)
    with open_media(path, codecs=CODECS) as container:
        # Formats tell themselves apart by more than how a file begins.
        if container.format.name != CONTAINERS[found]:
            raise MediaError(f"the file begins like {found}, and is {container.format.name}")
        for stream in container.streams:
            _check_stream(stream, limits)
        moving = moving_stream(container) is not None
        sound_s = _sound_s(container, limits)
    if moving:
        return _video(path, limits, has_sound=sound_s is not None)
    if sound_s is None:
        raise MediaError("the file has neither a picture nor a sound")
    return Inspected(kind="audio", has_sound=True, seconds=sound_s)


def _check_stream(stream: Stream, limits: Limits) -> None:
    if stream.type not in ("video", "audio"):
        return
    context = stream.codec_context
    if context is None or context.name not in CODECS:
        name = "unknown" if context is None else context.name
        raise MediaError(
            f"stream {stream.index} is of codec {name}; expected one of {', '.join(CODECS)}"
        )
    if isinstance(stream, av.VideoStream):
        _check_size(stream.width, stream.height, limits)
    if isinstance(stream, av.AudioStream) and not (
        0 < stream.channels <= MAX_CHANNELS and 0 < stream.sample_rate <= MAX_RATE_HZ
    ):
        raise MediaError(
            f"the sound has {stream.channels} channels of {stream.sample_rate} samples per second; "
            f"at most {MAX_CHANNELS} of {MAX_RATE_HZ} are allowed"
        )


def _check_size(width: int, height: int, limits: Limits) -> None:
    if not 0 < width * height <= limits.max_pixels:
        raise MediaError(
            f"a frame has {width}x{height} pixels; at most {limits.max_pixels} are allowed, and at "
            "least one"
        )


def _sound_s(container: InputContainer, limits: Limits) -> float | None:
    """Length of the sound, with the silence that stands for a late start."""
    stream = sound_stream(container)
    if stream is None:
        return None
    _check_seconds("sound starts after", sound_starts_at(container, stream), limits)
    num_samples = 0
    for piece in sound_pieces(container, stream):
        num_samples += piece.shape[1]
        _check_seconds("sound lasts at least", num_samples / stream.sample_rate, limits)
    if num_samples == 0:
        raise MediaError("the sound has no samples")
    return num_samples / stream.sample_rate


def _check_seconds(what: str, seconds: float, limits: Limits) -> None:
    if seconds > limits.max_seconds:
        raise MediaError(
            f"the {what} {seconds:.6g} s; at most {limits.max_seconds:g} s are allowed"
        )


def _video(path: Path, limits: Limits, *, has_sound: bool) -> Inspected:
    timing = timing_of(path)
    if timing.num_frames > limits.max_frames:
        raise MediaError(
            f"the video has {timing.num_frames} frames; at most {limits.max_frames} are allowed"
        )
    seconds = float(timing.num_frames / timing.fps)
    _check_seconds("video lasts", seconds, limits)
    size = (0, 0)
    for frame in shown_frames(path, timing):
        size = upright_size(frame)
        _check_size(*size, limits)
        if timing.num_frames * size[0] * size[1] > limits.max_video_pixels:
            raise MediaError(
                f"the video has {timing.num_frames} frames of {size[0]}x{size[1]} pixels; at most "
                f"{limits.max_video_pixels} pixels are allowed in all"
            )
    return Inspected(
        kind="video",
        has_sound=has_sound,
        width=size[0],
        height=size[1],
        num_frames=timing.num_frames,
        seconds=seconds,
    )


def confine(limits: Limits, check_s: float) -> None:
    """Take from this process, for good, what looking at a file does not need."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    # Whoever started it ends it by the clock; this is for one that nobody waits for any more. It
    # may use several CPUs at once.
    cpu_s = int(check_s * 16) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_ANSWER_BYTES, _ANSWER_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(path: str, limits_json: str, check_s: str) -> None:
    """Look at a file and write what it is, or why it is refused, to standard output as JSON."""
    limits = Limits(**json.loads(limits_json))
    confine(limits, float(check_s))
    try:
        answer: dict[str, object] = {"found": asdict(inspect(Path(path), limits))}
    except MemoryError:
        answer = {"refused": "looking at the file takes more memory than is allowed"}
    # Whatever it does to a decoder, it is the file's fault.
    except Exception as error:  # noqa: BLE001
        what = str(error) if isinstance(error, MediaError) else f"{type(error).__name__}: {error}"
        answer = {"refused": what.replace(path, "the file")[:1000]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
