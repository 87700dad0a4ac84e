"""What one reading of a file finds in it."""

import tracemalloc
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rayreel.config.encode import SceneSpec
from rayreel.errors import MediaError
from rayreel.media.footage import examine
from rayreel.media.frames import read_frames
from rayreel.media.loudness import read_loudness
from rayreel.media.mux import write_clip
from rayreel.types import Audio, Clip
from tests.media.samples import grey_levels, write_video, write_wav


def clip(num_frames=24, sound_s=1.0):
    samples = round(48000 * sound_s)
    wave = torch.sin(torch.arange(samples) / 20).expand(2, -1) * 0.5
    frames = (grey_levels(num_frames, 64, 96) * 8).contiguous()
    return Clip(frames=frames, fps=24.0, audio=Audio(waveform=wave, sample_rate_hz=48000))


def test_a_video_is_told_by_its_size_length_and_sound(tmp_path):
    write_clip(tmp_path / "a.mp4", clip())
    footage = examine(tmp_path / "a.mp4")
    assert (footage.kind, footage.width, footage.height) == ("video", 96, 64)
    assert (footage.fps, footage.num_frames, footage.duration_s) == (24, 24, 1)
    assert footage.sound_s == pytest.approx(1, abs=1e-3)
    assert footage.channels == 2
    assert (footage.cuts, footage.notes) == ((0,), ())


@pytest.mark.parametrize("times", [None, [0, 1, 2, 3, 9, 10, 20, 21]])
def test_thumbs_belong_to_the_frames_that_are_read(tmp_path, times):
    path = tmp_path / "a.mkv"
    write_video(path, grey_levels(8) * 30, times=times)
    footage = examine(path)
    frames = read_frames(path, count=99)
    assert footage.num_frames == len(frames) == len(footage.thumbs) == 8
    assert np.array_equal(footage.thumbs[:, 5, 5], frames[:, 0, 0, 0].numpy())
    assert any("rate varies" in note for note in footage.notes) == (times is not None)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_thumbs_are_upright(tmp_path, degrees):
    stored = torch.zeros(2, 32, 64, 3, dtype=torch.uint8)
    stored[:, :16, :32] = 200
    turn = lambda stream: stream.set_display_rotation(degrees)  # noqa: E731
    write_video(tmp_path / "a.mkv", stored, setup=turn)
    footage = examine(tmp_path / "a.mkv")
    frame = read_frames(tmp_path / "a.mkv", count=1)[0]
    assert (footage.height, footage.width) == frame.shape[:2]
    bright = [frame[y, x, 0] > 100 for y in (1, -2) for x in (1, -2)]
    assert bright == [footage.thumbs[0, y, x] > 100 for y in (1, -2) for x in (1, -2)]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "bgr0", "gray"])
def test_thumbs_go_from_black_to_white(tmp_path, pix_fmt):
    frames = grey_levels(2, 48, 64) * 255
    write_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt=pix_fmt)
    thumbs = examine(tmp_path / "a.mkv").thumbs
    assert np.unique(thumbs[0]).tolist() == [0]
    assert thumbs[1].min() >= 254


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_one_frame_whatever_its_name(tmp_path, kind):
    Image.new("RGB", (31, 17), (90, 90, 90)).save(tmp_path / "a.mp4", kind)
    footage = examine(tmp_path / "a.mp4")
    assert (footage.kind, footage.width, footage.height) == ("image", 31, 17)
    assert (footage.fps, footage.num_frames, footage.sound_s) == (1, 1, None)
    assert abs(int(footage.thumbs[0, 9, 9]) - 90) <= 1


def test_a_video_may_have_one_frame(tmp_path):
    write_video(tmp_path / "a.mp4", grey_levels(1), codec="libx264", pix_fmt="yuv420p")
    footage = examine(tmp_path / "a.mp4")
    assert (footage.kind, footage.num_frames, footage.fps) == ("video", 1, 24)


def test_sound_alone_has_its_own_length(tmp_path):
    write_wav(tmp_path / "a.wav", np.full((12000, 1), 1000, np.int16))
    footage = examine(tmp_path / "a.wav")
    assert (footage.kind, footage.duration_s, footage.sound_s) == ("audio", 1.5, 1.5)
    assert (footage.num_frames, footage.cuts, footage.channels) == (0, (0,), 1)


def test_loudness_follows_the_sound(tmp_path):
    samples = np.zeros((8000, 2), np.int16)
    samples[2000:4000] = 16384
    write_wav(tmp_path / "a.wav", samples)
    loudness = read_loudness(tmp_path / "a.wav")
    assert loudness is not None
    assert loudness.levels.shape == (20,)
    assert loudness.levels[5:10] == pytest.approx(0.5, abs=1e-4)
    assert not loudness.levels[:5].any()
    assert not loudness.levels[10:].any()


def test_a_long_sound_takes_no_memory(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(bytes(4 * 48000 * 60))
    tracemalloc.start()
    loudness = read_loudness(tmp_path / "a.wav")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert loudness is not None
    assert loudness.duration_s == 60
    assert peak < 2 * 2**20


def test_a_long_video_takes_the_memory_of_its_thumbs(tmp_path):
    write_video(tmp_path / "a.mkv", grey_levels(250, 64, 96))
    examine(tmp_path / "a.mkv", SceneSpec())
    tracemalloc.start()
    assert examine(tmp_path / "a.mkv", SceneSpec()).num_frames == 250
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The frames would take 250 times 18 KiB.
    assert peak < 250 * 1024 + 600 * 1024


def test_unusual_things_are_noted(tmp_path):
    def setup(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    write_video(tmp_path / "a.mkv", grey_levels(3), pix_fmt="bgra")
    assert examine(tmp_path / "a.mkv").notes == ("transparency is left out",)
    write_video(tmp_path / "a.mp4", grey_levels(3), codec="libx264", pix_fmt="yuv420p", setup=setup)
    assert "not square but 16:11" in examine(tmp_path / "a.mp4").notes[0]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "ffv1"), ("a.avi", "mpeg4"), ("a.mp4", "libx264"), ("a.ts", "mpeg2video")],
)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_video_that_is_cut_off_is_refused_by_name(tmp_path, name, codec, kept):
    pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
    frames = torch.randint(0, 255, (40, 64, 96, 3), dtype=torch.uint8)
    write_video(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(MediaError, match=name):
        examine(tmp_path / name)


def test_a_video_whose_sound_cannot_be_decoded_counts_as_silent(tmp_path):
    write_clip(tmp_path / "good.mp4", clip())
    with (
        av.open(str(tmp_path / "good.mp4")) as good,
        av.open(str(tmp_path / "bad.mp4"), "w") as bad,
    ):
        streams = {s.index: bad.add_stream_from_template(s) for s in good.streams}
        for packet in good.demux():
            if packet.dts is None:
                continue
            number = packet.stream.index
            if packet.stream.type == "audio":
                spoilt = av.Packet(b"\x55" * packet.size)
                spoilt.pts, spoilt.dts, spoilt.time_base = packet.pts, packet.dts, packet.time_base
                packet = spoilt  # noqa: PLW2901 - in its place
            packet.stream = streams[number]
            bad.mux(packet)
    footage = examine(tmp_path / "bad.mp4")
    assert (footage.num_frames, footage.sound_s) == (24, None)
    assert footage.notes == ("its sound cannot be decoded, and counts as none",)


def test_sound_that_is_cut_off_is_refused(tmp_path):
    write_wav(tmp_path / "a.wav", np.full((8000, 1), 1000, np.int16))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:5000])
    with pytest.raises(MediaError, match=r"a\.wav is cut off"):
        examine(tmp_path / "a.wav")


def test_what_is_no_media_file_is_refused_by_name(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello" * 99)
    with pytest.raises(MediaError, match=r"empty\.mp4: it is empty"):
        examine(tmp_path / "empty.mp4")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(MediaError, match=name):
            examine(tmp_path / name)
