"""A small corpus of everything that a list of clips may name: odd, damaged and alike ones too."""

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from rayreel.media.mux import X264_OPTIONS
from tests.media.samples import write_wav

MOVING_BUCKETS = "96x64x17;64x96x17;64x64x9"
STILL_BUCKET = "96x64x1"

_SOUND_BLOCK = 1024
_NOTE_HZ = 220
_TICKS = 1000
_ORIENTATION = 0x0112
_X265 = "log-level=none:pools=none:frame-threads=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusClip:
    """An entry of the list, and what becomes of it.

    Attributes:
        name: Its ``id`` in the list.
        path: File that it names; one of them does not exist.
        caption: As the list has it; ``None`` for a row without one.
        expect: What becomes of it with the spec of ``corpus_spec_values``.
        why: Part of the reason, where it is dropped (the name of a rule) or fails.
        width: Pixels of the upright picture; 0 where none can be read.
        height: The same.
        num_frames: At a constant rate; 0 where none can be read.
        sound: Whether there is sound beside the picture.
    """

    name: str
    path: Path
    caption: str | None
    expect: Literal["done", "dropped", "failed"] = "done"
    why: str = ""
    width: int = 0
    height: int = 0
    num_frames: int = 0
    sound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Voice:
    """A note, or silence at level 0."""

    seconds: float
    codec: str = "aac"
    layout: str = "stereo"
    rate: int = 48000
    start_s: float = 0.0
    level: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Movie:
    """A file with moving pictures; sizes are those that are stored."""

    file: str
    width: int = 96
    height: int = 64
    frames: int = 20
    fps: Fraction | int = 24
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, str] = field(default_factory=dict)
    voice: _Voice | None = None
    degrees: int = 0
    mirrored: bool = False
    transfer: ColorTrc | None = None
    ticks: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        turned = self.degrees % 180 == 90
        return (self.height, self.width) if turned else (self.width, self.height)


# Frames of a phone that slows down in the dark, in thousandths of a second.
_UNEVEN = tuple(int(t) for t in np.cumsum([0, *([33] * 12), *([66] * 12)]))

_MOVIES = (
    _Movie(file="wide.mp4", frames=24, voice=_Voice(seconds=1.0)),
    _Movie(
        file="portrait.mp4",
        width=64,
        height=96,
        fps=25,
        voice=_Voice(seconds=0.8, layout="mono", rate=44100),
    ),
    _Movie(file="square.mp4", width=64, frames=33, fps=Fraction(30000, 1001)),
    _Movie(file="large.mp4", width=320, height=180, frames=40, voice=_Voice(seconds=40 / 24)),
    _Movie(file="slow_odd.mkv", width=97, height=65, fps=12, codec="ffv1", pix_fmt="bgr0"),
    _Movie(file="panorama.mp4", width=256, frames=17),
    _Movie(file="tower.mp4", width=48, height=160, frames=18),
    _Movie(file="mono_16k.mp4", voice=_Voice(seconds=20 / 24, layout="mono", rate=16000)),
    _Movie(file="surround_5_1.mp4", voice=_Voice(seconds=20 / 24, layout="5.1")),
    _Movie(
        file="surround_7_1.mkv",
        fps=25,
        voice=_Voice(seconds=0.8, codec="flac", layout="7.1"),
    ),
    _Movie(file="sound_longer.mp4", voice=_Voice(seconds=2.5)),
    _Movie(file="sound_shorter.mp4", voice=_Voice(seconds=0.3)),
    _Movie(file="sound_late.mkv", voice=_Voice(seconds=0.5, codec="flac", start_s=0.25)),
    _Movie(file="silent_sound.mp4", voice=_Voice(seconds=20 / 24, level=0.0)),
    _Movie(file="variable_rate.mp4", frames=25, ticks=_UNEVEN),
    _Movie(file="turned_90.mp4", width=64, height=96, degrees=90),
    _Movie(file="turned_180.mp4", degrees=180),
    _Movie(file="mirrored.mkv", mirrored=True),
    _Movie(file="one_frame.mp4", frames=1),
    _Movie(file="short.mp4", frames=5),
    _Movie(file="nine_frames.mp4", width=64, frames=9),
    _Movie(file="moving.gif", fps=25, codec="gif", pix_fmt="rgb8"),
    _Movie(file="ten_bit.mkv", pix_fmt="yuv420p10le"),
    _Movie(file="hevc.mp4", codec="libx265", options={"x265-params": _X265}),
    _Movie(
        file="vp9.webm",
        codec="libvpx-vp9",
        options={"cpu-used": "8", "deadline": "realtime"},
        voice=_Voice(seconds=20 / 24, codec="libopus"),
    ),
    _Movie(file="mpeg4.avi", codec="mpeg4", voice=_Voice(seconds=0.8, codec="pcm_s16le")),
    _Movie(file="motion_jpeg.mov", codec="mjpeg", pix_fmt="yuvj422p"),
    _Movie(file="translucent.mov", codec="qtrle", pix_fmt="argb"),
    _Movie(file="broadcast.ts", fps=25, voice=_Voice(seconds=0.8, codec="mp2")),
    _Movie(file="grey.mp4", pix_fmt="gray"),
    _Movie(file="a.mp4"),
    _Movie(file="hard_cut.mp4", width=128, frames=40),
    _Movie(file="prefixed.mp4"),
    _Movie(file="unicode.mp4", fps=25),
    _Movie(file="uncaptioned.mp4"),
    _Movie(file="empty_caption.mp4"),
)
CUT_FRAME = 20
"""Where the scene of ``hard_cut`` changes."""

_CAPTIONS: dict[str, str | None] = {
    "prefixed": "In this video, a red ball rolls down a hill.",
    "unicode": "Ein Kölner Café bei Nacht \N{EM DASH} 雨が降る \N{FOX FACE}",
    "uncaptioned": None,
    "empty_caption": "",
}


def write_corpus(folder: Path) -> list[CorpusClip]:
    """Write media files and ``list.jsonl``, the same bytes each time.

    Args:
        folder: Where they go; it exists.

    Returns:
        Entries of the list, in its order.
    """
    clips = [
        *_movies(folder),
        *_stills(folder),
        *_others_of_the_same(folder),
        *_renamed(folder),
        *_filtered(folder),
        *_hdr(folder),
        *_without_picture(folder),
        *_damaged(folder),
    ]
    rows = []
    for clip in clips:
        row = {"id": clip.name, "video": clip.path.name, "caption": clip.caption}
        rows.append({key: value for key, value in row.items() if value is not None})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "list.jsonl").write_text(text, encoding="utf-8")
    return clips


def corpus_spec_values(folder: Path, output: Path, *, stills: bool = True) -> dict[str, Any]:
    """Values of the encode spec that entries of the corpus have their expectation for.

    Args:
        folder: Of the corpus.
        output: Of the dataset.
        stills: Whether there is a bucket of one frame, which every picture is long enough for.
            Without it, ``too_short`` tells what the rule ``bucket`` drops.
    """
    return {
        "dataset": str(folder / "list.jsonl"),
        "output": str(output),
        "model": "tiny",
        "buckets": f"{MOVING_BUCKETS};{STILL_BUCKET}" if stills else MOVING_BUCKETS,
        "filters": {"black": {"max": 0.9}, "frozen": {"max": 0.9}, "width": {"min": 32}},
        "duplicate_distance": 24,
    }


def too_short(clips: list[CorpusClip]) -> set[str]:
    """Names of entries that are done with a bucket of one frame, and dropped without it."""
    least = min(int(bucket.rsplit("x", 1)[1]) for bucket in MOVING_BUCKETS.split(";"))
    return {clip.name for clip in clips if clip.expect == "done" and clip.num_frames < least}


def _movies(folder: Path) -> Iterator[CorpusClip]:
    for movie in _MOVIES:
        frames = _moving_picture(movie.name, movie)
        if movie.name == "hard_cut":
            frames[CUT_FRAME:] = _moving_picture("after the cut", movie)[CUT_FRAME:]
        _write_movie(folder / movie.file, movie, frames)
        caption = _CAPTIONS.get(movie.name, _caption(movie.name))
        fate = {} if caption else {"expect": "failed", "why": "caption"}
        yield _clip(folder, movie, caption=caption, **fate)


def _stills(folder: Path) -> Iterator[CorpusClip]:
    stills: tuple[tuple[str, tuple[int, int], Callable[[Image.Image], Image.Image] | None], ...] = (
        ("still.png", (96, 64), None),
        ("turned.jpg", (96, 64), _turned),
        ("plain.jpg", (150, 100), None),
        ("still.webp", (120, 80), None),
        ("translucent.png", (96, 64), _half_transparent),
        ("sixteen_bit.png", (90, 60), _sixteen_bit_grey),
        ("palette.png", (96, 64), lambda image: image.quantize(64)),
    )
    for file, (width, height), change in stills:
        name = file.replace(".", "_")
        movie = _Movie(file=file, width=width, height=height, frames=1)
        image = Image.fromarray(_moving_picture(name, movie)[0])
        image = change(image) if change else image
        image.save(folder / file, exif=image.getexif())
        yield _clip(folder, movie, name=name)


def _turned(image: Image.Image) -> Image.Image:
    stored = image.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[_ORIENTATION] = 6
    return stored


def _half_transparent(image: Image.Image) -> Image.Image:
    image.putalpha(128)
    return image


def _sixteen_bit_grey(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def _others_of_the_same(folder: Path) -> Iterator[CorpusClip]:
    """Second captions of files, a copy, and another encoding."""
    by_name = {movie.name: movie for movie in _MOVIES}
    for first in ("wide", "hevc"):
        name = f"{first}_again"
        yield _clip(folder, by_name[first], name=name, caption=f"The {first} one, put otherwise.")
    shutil.copy(folder / "a.mp4", folder / "a.mov")
    copy = _Movie(file="a.mov")
    worse = _Movie(file="large_worse.mp4", width=160, height=90, frames=40, options={"crf": "28"})
    smaller = [
        np.asarray(Image.fromarray(pixels).resize((worse.width, worse.height)))
        for pixels in _moving_picture("large", by_name["large"])
    ]
    _write_movie(folder / worse.file, worse, np.stack(smaller))
    yield _clip(
        folder,
        copy,
        name="a_copy",
        # With a caption of its own, it would be another sample, as the second ones above are.
        caption=_caption("a"),
        expect="dropped",
        why="duplicate",
    )
    yield _clip(folder, worse, expect="dropped", why="near_duplicate")


def _renamed(folder: Path) -> Iterator[CorpusClip]:
    """Files whose names say that they are something else."""
    movie = _Movie(file="mp4_inside.avi", container={"format": "mp4"})
    _write_movie(folder / movie.file, movie, _moving_picture(movie.name, movie))
    yield _clip(folder, movie)
    still = _Movie(file="png_inside.mp4", frames=1)
    Image.fromarray(_moving_picture(still.name, still)[0]).save(folder / still.file, "PNG")
    yield _clip(folder, still)


def _filtered(folder: Path) -> Iterator[CorpusClip]:
    black = _Movie(file="black.mp4")
    # Lossless: other encoders need some frames to settle.
    frozen = _Movie(file="frozen.mkv", frames=36, codec="ffv1", pix_fmt="bgr0")
    small = _Movie(file="small.mp4", width=24, height=16)
    for movie, why in ((black, "black"), (frozen, "frozen"), (small, "width")):
        frames = _moving_picture(movie.name, movie)
        if movie is black:
            frames[:] = 0
        elif movie is frozen:
            frames[:] = frames[0]
        _write_movie(folder / movie.file, movie, frames)
        yield _clip(folder, movie, expect="dropped", why=why)


def _hdr(folder: Path) -> Iterator[CorpusClip]:
    for file, transfer in (("pq.mp4", ColorTrc.SMPTE2084), ("hlg.mp4", ColorTrc.ARIB_STD_B67)):
        movie = _Movie(
            file=file,
            codec="libx265",
            pix_fmt="yuv420p10le",
            options={"x265-params": _X265},
            transfer=transfer,
        )
        _write_movie(folder / file, movie, _moving_picture(movie.name, movie))
        yield _failing(folder / file, "HDR")


def _without_picture(folder: Path) -> Iterator[CorpusClip]:
    note = _note(_Voice(seconds=1.0))
    write_wav(folder / "sound.wav", (note.T * 32767).astype("<i2"), rate=48000)
    yield _failing(folder / "sound.wav", "no picture")
    song = _Movie(file="song.m4a", voice=_Voice(seconds=1.0), container={"format": "ipod"})
    _write_movie(folder / song.file, song, None)
    yield _failing(folder / song.file, "no picture")
    hollow = _Movie(file="no_frames.mkv", voice=_Voice(seconds=0.5, codec="flac"))
    _write_movie(folder / hollow.file, hollow, _moving_picture(hollow.name, hollow)[:0])
    yield _failing(folder / hollow.file, "no frames")


def _damaged(folder: Path) -> Iterator[CorpusClip]:
    movie = _Movie(file="whole.mp4", frames=30, container={"movflags": "+faststart"})
    _write_movie(folder / movie.file, movie, _moving_picture(movie.name, movie))
    whole = (folder / movie.file).read_bytes()
    (folder / movie.file).unlink()
    header_end = whole.index(b"mdat") - 4
    for file, data, why in (
        ("cut_off.mp4", whole[: (header_end + len(whole)) // 2], "cut off"),
        ("cut_header.mp4", whole[: header_end // 2], "cut_header.mp4"),
        ("empty.mp4", b"", "empty.mp4"),
        ("text.mp4", b"This is no video, whatever its name says.\n" * 20, "text.mp4"),
    ):
        (folder / file).write_bytes(data)
        yield _failing(folder / file, why)
    yield _failing(folder / "missing.mp4", "missing.mp4")


def _clip(folder: Path, movie: _Movie, **others: Any) -> CorpusClip:
    """An entry of a movie; what is given holds, and the rest is the movie's own."""
    width, height = movie.size
    name = others.get("name", movie.name)
    values = {
        "name": name,
        "caption": _caption(name),
        "width": width,
        "height": height,
        "num_frames": movie.frames,
        "sound": movie.voice is not None,
    }
    return CorpusClip(path=folder / movie.file, **{**values, **others})


def _failing(path: Path, why: str) -> CorpusClip:
    name = path.stem
    return CorpusClip(name=name, path=path, caption=_caption(name), expect="failed", why=why)


def _caption(name: str) -> str:
    return f"Soft colours drift past: {name.replace('_', ' ')}."


def _moving_picture(name: str, movie: _Movie) -> NDArray[np.uint8]:
    """Soft colours ``(F, H, W, 3)`` that drift to the left; another name, other colours."""
    width, height, frames = movie.width, movie.height, movie.frames
    step = max(1, width // 48)
    long = width + frames * step
    random = np.random.default_rng(zlib.crc32(name.encode()))
    strip = np.zeros((height, long, 3), np.float32)
    # Large and small shapes, as photographs have: hashes of soft colours alone are noise.
    for cells, weight in ((3, 0.5), (6, 0.3), (12, 0.2)):
        shape = (cells, round(cells * long / width), 3)
        grid = Image.fromarray(random.integers(20, 236, shape, dtype=np.uint8))
        strip += weight * np.asarray(grid.resize((long, height), Image.Resampling.BICUBIC))
    strip = strip.astype(np.uint8)
    return np.stack([strip[:, at * step : at * step + width] for at in range(frames)])


def _note(voice: _Voice) -> NDArray[np.float32]:
    """Float32 ``(channels, samples)``; each channel is a note of its own."""
    time = np.arange(round(voice.seconds * voice.rate)) / voice.rate
    channels = av.AudioLayout(voice.layout).nb_channels
    notes = [np.sin(2 * np.pi * _NOTE_HZ * (1 + channel) * time) for channel in range(channels)]
    return (voice.level * np.stack(notes)).astype(np.float32)


def _write_movie(path: Path, movie: _Movie, frames: NDArray[np.uint8] | None) -> None:
    """Write frames ``(F, H, W, 3)`` and sound; without any frames, no picture is announced."""
    # Without names and numbers that would be others the next time.
    options = {"fflags": "+bitexact", **movie.container}
    kind = options.pop("format", None)
    with av.open(str(path), "w", format=kind, options=options) as container:
        video = None if frames is None else _video_stream(container, movie)
        sound = None if movie.voice is None else _sound_stream(container, movie.voice)
        if video is not None and frames is not None:
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.time_base = Fraction(1, _TICKS) if movie.ticks else 1 / Fraction(movie.fps)
                frame.pts = movie.ticks[index] if movie.ticks else index
                container.mux(video.encode(frame))
            # Of a stream without frames, there is nothing to flush.
            container.mux(video.encode() if len(frames) else [])
        if sound is not None and movie.voice is not None:
            _mux_sound(container, sound, movie.voice)


def _video_stream(container: OutputContainer, movie: _Movie) -> VideoStream:
    options = dict(X264_OPTIONS if movie.codec == "libx264" else {}, **movie.options)
    stream = container.add_stream(movie.codec, rate=movie.fps, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = movie.width, movie.height, movie.pix_fmt
    # What encoders write depends on their threads.
    stream.thread_count = 1
    if movie.ticks:
        stream.codec_context.time_base = Fraction(1, _TICKS)
    if movie.degrees or movie.mirrored:
        stream.set_display_rotation(movie.degrees, hflip=movie.mirrored)
    if movie.transfer is not None:
        stream.codec_context.color_trc = movie.transfer
        stream.codec_context.color_primaries = ColorPrimaries.BT2020
        stream.codec_context.colorspace = Colorspace.BT2020
    return stream


def _sound_stream(container: OutputContainer, voice: _Voice) -> AudioStream:
    stream = container.add_stream(voice.codec, rate=voice.rate, layout=voice.layout)
    assert isinstance(stream, AudioStream)
    return stream


def _mux_sound(container: OutputContainer, stream: AudioStream, voice: _Voice) -> None:
    waveform = _note(voice)
    start = round(voice.start_s * voice.rate)
    for at in range(0, waveform.shape[1], _SOUND_BLOCK):
        # Interleaved: PyAV fails on eight planes.
        block = waveform[:, at : at + _SOUND_BLOCK].T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout=voice.layout)
        frame.sample_rate = voice.rate
        frame.pts, frame.time_base = start + at, Fraction(1, voice.rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
