"""Frames at a constant rate: a file's own where its rate is constant, and what is shown else."""

from fractions import Fraction

import av
import pytest
import torch
from PIL import Image

from rayreel.errors import MediaError
from rayreel.media.frames import frame_indices, iterate_frames, read_frames
from rayreel.media.timing import timing_of
from rayreel.media.video import read_clip
from tests.media.samples import grey_levels, write_video, write_wav

VARIABLE = [0, 1, 2, 3, 4, 8, 12, 16, 17, 18]


def levels(frames):
    return frames[:, 0, 0, 0].tolist()


def b_frames(stream):
    stream.codec_context.max_b_frames = 2
    stream.codec_context.gop_size = 12


FORMATS = [
    ("a.mkv", "ffv1", "bgr0"),
    ("a.mp4", "libx264", "yuv420p"),
    ("a.avi", "mpeg4", "yuv420p"),
    ("a.ts", "libx264", "yuv420p"),
    ("a.mpg", "mpeg2video", "yuv420p"),
    ("a.flv", "libx264", "yuv420p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
]
GAPS = [index + index // 20 * 5 for index in range(60)]
LATE = [(*case, None) for case in FORMATS] + [
    (*case, GAPS) for case in FORMATS if case[0] not in ("a.avi", "a.mpg")
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_a_constant_rate_gives_the_files_own_frames(tmp_path, name, codec, pix_fmt):
    path = tmp_path / name
    write_video(path, grey_levels(50) * 4, codec=codec, pix_fmt=pix_fmt, setup=b_frames)
    timing = timing_of(path)
    assert (timing.fps, timing.num_frames, timing.steady) == (Fraction(24), 50, True)
    assert torch.equal(read_frames(path, count=99), read_clip(path).frames)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50)])
def test_rounded_times_are_no_variable_rate(tmp_path, rate):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        for index in range(400):
            frame = av.VideoFrame(16, 16, "gray")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    timing = timing_of(path)
    assert (timing.fps, timing.num_frames, timing.steady) == (rate, 400, True)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS[:2])
def test_a_variable_rate_becomes_the_average(tmp_path, name, codec, pix_fmt):
    path = tmp_path / name
    write_video(path, grey_levels(10) * 20, codec=codec, pix_fmt=pix_fmt, times=VARIABLE)
    timing = timing_of(path)
    # Ten frames in 19 times a 24th of a second.
    assert float(timing.fps) == pytest.approx(24 * 10 / 19, rel=0.01)
    assert (timing.num_frames, timing.steady) == (10, False)
    shown = [0, 2, 4, 4, 5, 5, 6, 6, 7, 9]
    found = [round(level / 20) for level in levels(read_frames(path, count=99))]
    assert found == shown


def test_small_jitter_keeps_every_frame(tmp_path):
    times = [4 * index + (index * 7) % 3 - 1 for index in range(1, 30)]
    write_video(tmp_path / "a.mkv", grey_levels(29), times=times)
    assert timing_of(tmp_path / "a.mkv").steady
    assert levels(read_frames(tmp_path / "a.mkv", count=99)) == list(range(29))


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "times"), LATE)
def test_a_late_start_gives_what_reading_from_the_start_does(tmp_path, name, codec, pix_fmt, times):
    path = tmp_path / name
    frames = torch.randint(0, 255, (60, 32, 48, 3), dtype=torch.uint8)
    write_video(path, frames, codec=codec, pix_fmt=pix_fmt, setup=b_frames, times=times)
    whole = read_frames(path, count=60)
    assert len(whole) == 60
    for start in (1, 11, 12, 13, 37, 59):
        part = read_frames(path, start=start, count=5)
        assert torch.equal(part, whole[start : start + 5])


def test_a_late_start_does_not_decode_what_comes_before(tmp_path):
    path = tmp_path / "a.mp4"
    frames = torch.randint(0, 255, (60, 32, 48, 3), dtype=torch.uint8)
    write_video(path, frames, codec="libx264", pix_fmt="yuv420p", setup=b_frames)
    whole = read_frames(path, count=60)
    data = bytearray(path.read_bytes())
    data[len(data) // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 5)
    path.write_bytes(data)
    assert torch.equal(read_frames(path, start=50, count=9), whole[50:59])
    with pytest.raises(MediaError, match=r"a\.mp4"):
        read_frames(path, count=60)


def test_after_the_first_frame_one_of_so_many_is_taken(tmp_path):
    write_video(tmp_path / "a.mkv", grey_levels(30))
    found = levels(read_frames(tmp_path / "a.mkv", start=3, count=5, stride=4))
    assert found == [3 + index for index in frame_indices(5, 4)] == [3, 4, 8, 12, 16]


@pytest.mark.parametrize(("start", "stride", "left"), [(0, 1, 9), (4, 1, 5), (0, 3, 4), (8, 2, 1)])
def test_fewer_frames_come_where_the_video_ends(tmp_path, start, stride, left):
    write_video(tmp_path / "a.mkv", grey_levels(9))
    assert len(read_frames(tmp_path / "a.mkv", start=start, count=50, stride=stride)) == left


def test_a_start_behind_the_end_is_an_error(tmp_path):
    write_video(tmp_path / "a.mkv", grey_levels(9))
    with pytest.raises(MediaError, match=r"a\.mkv ends before frame 9"):
        read_frames(tmp_path / "a.mkv", start=9, count=1)
    with pytest.raises(ValueError, match="stride=0"):
        read_frames(tmp_path / "a.mkv", count=1, stride=0)


def test_an_image_is_its_only_frame_whatever_its_name(tmp_path):
    Image.new("RGBA", (31, 17), (200, 10, 20, 0)).save(tmp_path / "a.mp4", "PNG")
    frames = read_frames(tmp_path / "a.mp4", count=9)
    assert frames.shape == (1, 17, 31, 3)
    assert frames[0, 0, 0].tolist() == [200, 10, 20]
    assert not list(iterate_frames(tmp_path / "a.mp4", start=1, count=9))


@pytest.mark.parametrize(("transfer", "name"), [(16, "smpte2084"), (18, "arib-std-b67")])
def test_hdr_is_refused_and_told_what_to_do(tmp_path, transfer, name):
    def setup(stream):
        stream.codec_context.color_trc = transfer

    write_video(
        tmp_path / "a.mp4", grey_levels(3), codec="libx264", pix_fmt="yuv420p10le", setup=setup
    )
    with pytest.raises(MediaError, match=f"{name}.*expected SDR.*zscale"):
        read_frames(tmp_path / "a.mp4", count=1)


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuva420p", "gray", "rgb48le"])
def test_unusual_pixels_become_eight_bits_of_rgb(tmp_path, pix_fmt):
    write_video(tmp_path / "a.mkv", grey_levels(2, 17, 31) + 100, codec="ffv1", pix_fmt=pix_fmt)
    frames = read_frames(tmp_path / "a.mkv", count=2)
    assert frames.shape == (2, 17, 31, 3)
    assert (frames.int() - 100 - torch.arange(2)[:, None, None, None]).abs().max() <= 1


def test_sound_alone_has_no_frames(tmp_path):
    write_wav(tmp_path / "a.wav", torch.zeros(100, 1, dtype=torch.int16).numpy())
    with pytest.raises(MediaError, match="no video stream, only sound"):
        read_frames(tmp_path / "a.wav", count=1)
    with pytest.raises(MediaError, match=r"missing\.mp4"):
        read_frames(tmp_path / "missing.mp4", count=1)


def test_a_changed_file_is_not_taken_for_the_one_before(tmp_path):
    for count in (5, 9):
        write_video(tmp_path / "a.mkv", grey_levels(count))
        assert timing_of(tmp_path / "a.mkv").num_frames == count
