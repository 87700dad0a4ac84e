"""Opening media files, and what a file says about itself."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rayreel.errors import MediaError
from rayreel.media.files import open_file
from rayreel.media.orientation import upright_size

FORMATS = (
    *("mp4", "matroska", "avi", "mpegts", "mpeg", "ogg", "flv", "asf", "gif"),
    *("wav", "w64", "mp3", "flac", "aac", "aiff"),
)
"""Formats that are read, by ffmpeg's names: those that hold their data themselves.

Playlists and lists of files (HLS, DASH, concat, SDP) would have ffmpeg open whatever they name.
"""

TS_PACKET_BYTES = 188
"""Of an MPEG transport stream, which is a row of packets without a header."""

_TS_SYNC = b"G"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What a video file holds.

    Attributes:
        width: Pixels, of the upright picture.
        height: Pixels, of the upright picture.
        num_frames: Video frames.
        fps: Frames per second.
        duration_s: Length of the video track.
        sample_rate_hz: Rate of the sound; ``None`` for a silent file.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float
    sample_rate_hz: int | None

    @property
    def has_audio(self) -> bool:
        """Whether the file has sound."""
        return self.sample_rate_hz is not None


@contextmanager
def open_media(
    source: str | Path, *, codecs: Sequence[str] | None = None
) -> Iterator[InputContainer]:
    """Open a media file for reading; ffmpeg sees its bytes and can open nothing else.

    Args:
        source: A local path, or a URI that fsspec opens.
        codecs: Decoders that ffmpeg may try while it looks for streams; by default all. Callers
            that decode must look at the streams' own.

    Raises:
        MediaError: If the file is missing, cut off or of a format that is not read, or turns out
            damaged while it is read.
    """
    with open_file(source) as file:
        size, stated_end = _ends(file, source)
        try:
            with _opened(file, source, codecs) as container:
                # ffmpeg plays what is left of a cut-off file without a word.
                entries = (entry for stream in container.streams for entry in stream.index_entries)
                end = max([stated_end, *(entry.pos + entry.size for entry in entries)])
                if end > size:
                    raise MediaError(
                        f"{source} is cut off: it should reach to byte {end}, and has {size} bytes"
                    )
                yield container
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"cannot read {source}: {error.strerror or error}") from error


def _ends(file: BinaryIO, source: str | Path) -> tuple[int, int]:
    """Bytes of the file, and where it should end at the earliest by what it begins with."""
    try:
        size = file.seek(0, os.SEEK_END)
        stated_end = _stated_end(file, size)
        file.seek(0)
    # What files raise that can only be read from start to end.
    except (OSError, ValueError) as error:
        raise MediaError(
            f"cannot read {source}: media are read from places that can be sought in, and this "
            f"one cannot ({error})"
        ) from error
    if size == 0:
        raise MediaError(f"cannot read {source}: it is empty, a file of 0 bytes")
    return size, stated_end


def _stated_end(file: BinaryIO, size: int) -> int:
    file.seek(0)
    head = file.read(8)
    if head[4:] == b"ftyp":
        return _header_end(file)
    if head[:1] == _TS_SYNC and file.read(TS_PACKET_BYTES)[-8:-7] == _TS_SYNC:
        # It can end anywhere, but for the middle of a packet.
        return -(-size // TS_PACKET_BYTES) * TS_PACKET_BYTES
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _segment_end(file)
    if head[:4] == b"RIFF" and head[4:] != b"\xff\xff\xff\xff":
        # Without the 8 bytes of its own header, which some writers count and some do not.
        return int.from_bytes(head[4:], "little")
    return 0


def _header_end(file: BinaryIO) -> int:
    """Where the header of an MP4 ends: without its last part, ffmpeg finds no streams or fewer."""
    end, kind = 0, b"ftyp"
    while kind != b"moov":
        file.seek(end)
        box = file.read(16)
        num_bytes, kind = int.from_bytes(box[:4]), box[4:8]
        if num_bytes == 1:
            num_bytes = int.from_bytes(box[8:])
        if num_bytes < 8:
            # The rest of the file, or nothing any more.
            break
        end += num_bytes
    return end


def _segment_end(file: BinaryIO) -> int:
    """Where the one large element of a Matroska file ends; 0 if it was written as it came."""
    file.seek(4)
    header_bytes, _ = _matroska_size(file)
    file.seek(header_bytes, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    num_bytes, known = _matroska_size(file)
    return file.tell() + num_bytes if known else 0


def _matroska_size(file: BinaryIO) -> tuple[int, bool]:
    """A number of 1 to 8 bytes, the leading zeros of which tell how many; all ones: not known."""
    first = file.read(1)
    more = 8 - first[0].bit_length() if first else 8
    if more == 8:
        return 0, False
    bits = 7 * (more + 1)
    value = int.from_bytes(first + file.read(more)) & (1 << bits) - 1
    return value, value != (1 << bits) - 1


def _opened(file: BinaryIO, source: str | Path, codecs: Sequence[str] | None) -> InputContainer:
    # No protocol goes by this name: whatever a format may name, it is not opened.
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
    if codecs is not None:
        options["codec_whitelist"] = ",".join(codecs)
    try:
        return av.open(file, "r", options=options)
    except (av.ArgumentError, av.InvalidDataError) as error:
        raise MediaError(
            f"cannot read {source}: {error.strerror}. Formats that can be read: "
            f"{', '.join(FORMATS)}"
        ) from error


@contextmanager
def create_mp4(
    path: str | Path, *, kind: str, sample_rate_hz: int | None
) -> Iterator[OutputContainer]:
    """Start an MP4 that plays while it downloads.

    Args:
        path: Local file to write; its folder exists.
        kind: ffmpeg's name of the flavour: ``mp4``, or ``ipod`` for sound alone.
        sample_rate_hz: Of the sound, if there is any.

    Raises:
        MediaError: If what is written to it cannot be encoded.
        OSError: If the file cannot be written.
    """
    # Edit lists count in the movie's time scale: this makes the sound's length exact to a sample.
    options = {"movflags": "+faststart", "movie_timescale": str(sample_rate_hz or 1000)}
    try:
        with av.open(str(path), "w", format=kind, options=options) as output:
            yield output
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise MediaError(f"cannot encode {path}: {error}") from error


def video_stream(container: InputContainer, source: str | Path) -> tuple[VideoStream, Fraction]:
    """The first video stream and its frame rate; the cover of a song is none.

    Raises:
        MediaError: If there is none, or it has no frame rate.
    """
    stream = moving_stream(container)
    if stream is None:
        only = ", only sound" if container.streams.audio else ""
        raise MediaError(f"{source} has no video stream{only}")
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise MediaError(f"the video of {source} has no frame rate")
    return stream, rate


def moving_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream, if there is one; the cover of a song is none."""
    moving = (s for s in container.streams.video if Disposition.attached_pic not in s.disposition)
    return next(moving, None)


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first audio stream; ``None`` for a silent file."""
    return next(iter(container.streams.audio), None)


def probe(source: str | Path) -> MediaInfo:
    """Size, length and rates of a video file; decodes its first frame only.

    Args:
        source: A local path, or a URI that fsspec opens.

    Raises:
        MediaError: If the file cannot be read or has no video.
    """
    with open_media(source) as container:
        stream, rate = video_stream(container, source)
        sound = sound_stream(container)
        exact = stream.duration and stream.time_base and stream.duration * stream.time_base
        # An index leaves out nothing if it is whole; edit lists hide some of the frames in it.
        index = stream.index_entries
        whole = 0 < stream.frames == len(index)
        first: VideoFrame | None = None
        num_packets = 0
        for packet in container.demux(stream):
            # How the picture is turned comes with its frames.
            first = first or next(iter(packet.decode()), None)
            num_packets += packet.size > 0 and not packet.is_discard
            if first and whole:
                break
        num_frames = sum(not entry.is_discard for entry in index) if whole else num_packets
        width, height = upright_size(first) if first else (stream.width, stream.height)
        return MediaInfo(
            width=width,
            height=height,
            num_frames=num_frames,
            fps=float(rate),
            duration_s=float(exact or num_frames / rate),
            sample_rate_hz=sound.sample_rate if sound else None,
        )
