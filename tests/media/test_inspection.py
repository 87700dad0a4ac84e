"""Files of strangers: what passes, and each way to be refused."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from rayreel.errors import MediaError
from rayreel.media.inspection import Limits, file_type, inspect
from tests.media.samples import grey_levels, write_video, write_wav

LIMITS = Limits(max_pixels=10_000, max_frames=20, max_video_pixels=150_000, max_seconds=2.0)


def png_of(width: int, height: int) -> bytes:
    """A header that promises much, with almost nothing behind it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def sound(path: Path, codec: str, seconds: float, rate: int = 8000, layout: str = "mono") -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        channels = stream.layout.nb_channels
        silence = np.zeros((channels, 1024), np.float32)
        resampler = av.AudioResampler(stream.format, layout, rate, 1024)
        for index in range(round(seconds * rate / 1024)):
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, index * 1024
            for part in resampler.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    return path


def clip(path: Path, num_frames: int = 9, codec: str = "libx264", **size: int) -> Path:
    pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
    write_video(path, grey_levels(num_frames, **size), codec=codec, pix_fmt=pix_fmt)
    return path


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_stills_pass(tmp_path, kind):
    path = tmp_path / "upload"
    Image.new("RGB", (40, 30)).save(path, kind)
    found = inspect(path, LIMITS)
    assert (found.kind, found.width, found.height, found.has_sound) == ("image", 40, 30, False)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "ffv1")]
)
def test_videos_pass_whatever_their_name(tmp_path, name, codec):
    path = clip(tmp_path / name, codec=codec).rename(tmp_path / "upload.txt")
    found = inspect(path, LIMITS)
    assert (found.kind, found.num_frames, found.width) == ("video", 9, 32)
    assert found.seconds == pytest.approx(9 / 24)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 8000),
        ("a.mp3", "libmp3lame", 16000),
        ("a.flac", "flac", 8000),
        ("a.ogg", "libopus", 48000),
        ("a.m4a", "aac", 8000),
        ("a.webm", "libopus", 48000),
    ],
)
def test_sounds_pass(tmp_path, name, codec, rate):
    found = inspect(sound(tmp_path / name, codec, 1.0, rate), LIMITS)
    assert (found.kind, found.has_sound) == ("audio", True)
    assert found.seconds == pytest.approx(1.0, abs=0.2)


def test_all_frames_together_are_limited_in_size(tmp_path):
    limits = replace(LIMITS, max_video_pixels=100 * 64 * 9)
    assert inspect(clip(tmp_path / "a.mp4", width=64, height=64), limits).num_frames == 9
    path = clip(tmp_path / "b.mp4", width=128, height=64)
    with pytest.raises(MediaError, match="9 frames of 128x64 pixels; at most 57600 pixels"):
        inspect(path, limits)


@pytest.mark.parametrize("size", [(101, 100), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_huge_images_are_refused_by_their_header(tmp_path, size):
    (tmp_path / "a").write_bytes(png_of(*size))
    with pytest.raises(MediaError, match=f"{size[0]}x{size[1]}.*at most 10000|is too large"):
        inspect(tmp_path / "a", LIMITS)


def test_image_whose_rows_are_missing_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(png_of(90, 90))
    with pytest.raises(MediaError, match="cannot read"):
        inspect(tmp_path / "a", LIMITS)


def test_text_that_unpacks_to_much_more_is_refused(tmp_path):
    data = png_of(2, 2)
    body = b"note\0\0" + zlib.compress(bytes(2**26), 9)
    text = struct.pack(">I", len(body)) + b"zTXt" + body
    text += struct.pack(">I", zlib.crc32(b"zTXt" + body))
    (tmp_path / "a").write_bytes(data[:33] + text + data[33:])
    with pytest.raises(MediaError, match="cannot read"):
        inspect(tmp_path / "a", LIMITS)


def test_frames_are_limited_in_size(tmp_path):
    path = clip(tmp_path / "a.mp4", height=128, width=128)
    with pytest.raises(MediaError, match="128x128 pixels; at most 10000"):
        inspect(path, LIMITS)


def test_frames_are_limited_in_number(tmp_path):
    with pytest.raises(MediaError, match="21 frames; at most 20"):
        inspect(clip(tmp_path / "a.mp4", 21), LIMITS)


def test_videos_are_limited_in_length(tmp_path):
    write_video(
        tmp_path / "a.mp4",
        grey_levels(3),
        codec="libx264",
        pix_fmt="yuv420p",
        times=[0, 50, 100],
    )
    with pytest.raises(MediaError, match=r"at most 2 s"):
        inspect(tmp_path / "a.mp4", LIMITS)


def test_sounds_are_limited_in_length_however_small_the_file(tmp_path):
    path = sound(tmp_path / "a.flac", "flac", 600.0)
    assert path.stat().st_size < 200_000
    with pytest.raises(MediaError, match=r"at least 2\.\d+ s; at most 2 s"):
        inspect(path, LIMITS)


def test_sounds_are_limited_in_rate_and_channels(tmp_path):
    write_wav(tmp_path / "fast.wav", np.zeros((1000, 1), np.int16), 400_000)
    write_wav(tmp_path / "wide.wav", np.zeros((1000, 12), np.int16))
    for name in ("fast", "wide"):
        with pytest.raises(MediaError, match="at most 8 of 192000"):
            inspect(tmp_path / f"{name}.wav", LIMITS)


def test_codecs_that_few_have_looked_at_are_refused(tmp_path):
    path = sound(tmp_path / "a.wav", "pcm_alaw", 1.0)
    with pytest.raises(MediaError, match=r"stream 0 is of codec pcm_alaw; expected one of h264"):
        inspect(path, LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        "ffconcat version 1.0\nfile /etc/passwd\n",
        "<?xml version='1.0'?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "%!PS-Adobe-3.0\n",
        "GIF89a",
        "",
    ],
)
def test_lists_of_other_files_and_whatever_else_is_refused(tmp_path, text):
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(MediaError, match="expected PNG, JPEG or WebP"):
        inspect(tmp_path / "a.mp4", LIMITS)


def test_beginning_of_one_format_in_front_of_another_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + b"#EXTM3U\n" * 200)
    with pytest.raises(MediaError):
        inspect(tmp_path / "a", LIMITS)
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n" * 50
    (tmp_path / "b").write_bytes(b"fLaC" + playlist)
    with pytest.raises(MediaError):
        inspect(tmp_path / "b", LIMITS)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flac", "a.wav"])
def test_files_that_end_early_are_refused(tmp_path, name):
    path = tmp_path / name
    if name in ("a.mp4", "a.mkv"):
        clip(path, codec="libx264")
    elif name == "a.flac":
        sound(path, "flac", 1.0)
    else:
        write_wav(path, np.zeros((8000, 1), np.int16))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(MediaError):
        inspect(path, LIMITS)


def test_file_without_streams_is_refused(tmp_path):
    empty = struct.pack(">I", 8) + b"moov"
    (tmp_path / "a").write_bytes(struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + empty)
    with pytest.raises(MediaError):
        inspect(tmp_path / "a", LIMITS)


def test_random_bytes_behind_a_good_beginning_never_raise_anything_else(tmp_path):
    noise = np.random.default_rng(0)
    starts = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0\0\0\x18ftypisom", b"fLaC", b"OggS"]
    starts += [b"\x1a\x45\xdf\xa3", b"ID3\x03", b"RIFF\xff\0\0\0WAVE", b"RIFF\xff\0\0\0WEBP"]
    for start in starts:
        (tmp_path / "a").write_bytes(start + noise.bytes(2000))
        with pytest.raises(MediaError):
            inspect(tmp_path / "a", LIMITS)


def test_mp3_begins_with_or_without_a_tag():
    assert file_type(b"ID3\x04") == file_type(b"\xff\xfb\x90\x64") == "mp3"
    # AAC has the same eleven bits.
    with pytest.raises(MediaError):
        file_type(b"\xff\xf1\x50\x80")


def test_encoded_images_of_many_modes_pass(tmp_path):
    for mode in ("1", "L", "P", "RGBA", "I;16"):
        buffer = io.BytesIO()
        Image.new(mode, (8, 8)).save(buffer, "PNG")
        (tmp_path / "a").write_bytes(buffer.getvalue())
        assert inspect(tmp_path / "a", LIMITS).kind == "image"
