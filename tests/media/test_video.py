"""Frames of a file: parts of it, the right way up, and as masks."""

import gc
import io
import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from rayreel.errors import MediaError
from rayreel.media.container import probe
from rayreel.media.video import read_clip, read_last_frames, read_mask, stream_frames
from tests.media.samples import grey_levels, write_video, write_wav


@pytest.fixture
def path(tmp_path):
    """21 frames whose number is their brightness."""
    write_video(tmp_path / "a.mkv", grey_levels(21))
    return tmp_path / "a.mkv"


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, 17), (16, 16), (20, 99), (30, 40)])
@pytest.mark.parametrize("chunk", [1, 4, 8, 50])
def test_streamed_frames_are_the_asked_ones_in_order(path, start, stop, chunk):
    chunks = list(stream_frames(path, start=start, stop=stop, chunk=chunk))
    numbers = [int(frame[0, 0, 0]) for part in chunks for frame in part]
    assert numbers == list(range(21))[start:stop]
    assert all(len(part) == chunk for part in chunks[:-1])
    assert all(part.shape[1:] == (16, 32, 3) and part.dtype == torch.uint8 for part in chunks)


def test_streamed_frames_do_not_pile_up(tmp_path):
    write_video(tmp_path / "a.mkv", grey_levels(120, 64, 64))
    tracemalloc.start()
    count = sum(len(part) for part in stream_frames(tmp_path / "a.mkv", chunk=4))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 120
    # Two chunks, once as single frames and once in one piece.
    assert peak < 20 * 64 * 64 * 3


def test_a_stream_that_is_given_up_closes_its_file(path):
    frames = stream_frames(path)
    next(frames)
    frames.close()
    path.unlink()
    assert next(frames, None) is None


@pytest.mark.parametrize("bounds", [{"start": -1}, {"start": 3, "stop": 2}, {"chunk": 0}])
def test_impossible_parts_are_a_mistake_of_the_caller(path, bounds):
    with pytest.raises(ValueError, match="0 <= start <= stop"):
        next(stream_frames(path, **bounds))


@pytest.mark.parametrize("count", [1, 9, 21])
def test_last_frames_are_exactly_the_last(path, count):
    frames = read_last_frames(path, count)
    assert frames[:, 0, 0, 0].tolist() == list(range(21))[-count:]


def test_more_last_frames_than_there_are_is_an_error(path):
    with pytest.raises(MediaError, match=r"a\.mkv has 21 frames; the last 22 were asked for"):
        read_last_frames(path, 22)
    with pytest.raises(ValueError, match="count=0"):
        read_last_frames(path, 0)


@pytest.mark.parametrize("mirrored", [{}, {"hflip": True}, {"vflip": True}])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_video_of_a_turned_phone_is_upright(tmp_path, degrees, mirrored):
    stored = torch.zeros(3, 16, 32, 3, dtype=torch.uint8)
    stored[:, :8, :16] = torch.tensor([240, 20, 20]).byte()
    stored[:, 8:, 16:] = torch.tensor([20, 20, 240]).byte()
    path = tmp_path / "a.mkv"
    turn = lambda stream: stream.set_display_rotation(degrees, **mirrored)  # noqa: E731
    write_video(path, stored, setup=turn)
    shown = stored.rot90(degrees // 90, (1, 2))
    shown = shown.flip(2) if "hflip" in mirrored else shown
    shown = shown.flip(1) if "vflip" in mirrored else shown
    assert torch.equal(read_clip(path).frames, shown)
    assert torch.equal(read_last_frames(path, 1), shown[-1:])
    assert (probe(path).height, probe(path).width) == shown.shape[1:3]


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_turn_that_is_noted_in_exif_is_undone(tmp_path, orientation, undo):
    upright = Image.new("RGB", (32, 48), (240, 20, 20))
    upright.paste((20, 20, 240), (0, 0, 16, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    upright.transpose(undo).save(data, "JPEG", exif=exif, quality=95, subsampling=0)
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height = upright.transpose(undo).size
        stream.pix_fmt = "yuvj444p"
        packet = av.Packet(data.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 24)
        container.mux(packet)
    frame = read_clip(path).frames[0]
    assert (frame.int() - torch.from_numpy(np.array(upright)).int()).abs().max() < 12
    assert (probe(path).width, probe(path).height) == upright.size


def test_frames_that_an_editor_has_cut_away_do_not_count(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, grey_levels(9) * 20, codec="libx264", pix_fmt="yuv420p")
    data = bytearray(path.read_bytes())
    entry = data.find(b"elst") + 12
    duration, start = struct.unpack_from(">Ii", data, entry)
    # Two frames are cut off at the front: 12288 ticks of the track a second, 1000 of the movie.
    struct.pack_into(">Ii", data, entry, duration - 2 * 1000 // 24, start + 2 * 12288 // 24)
    path.write_bytes(data)
    assert probe(path).num_frames == len(read_clip(path).frames) == 7


def test_a_video_that_changes_its_size_is_refused(tmp_path):
    path = tmp_path / "a.mpg"
    parts = []
    for width in (32, 48):
        write_video(path, grey_levels(3, 32, width), codec="mpeg2video", pix_fmt="yuv420p")
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(MediaError, match="from 32x32 to 48x32"):
        list(stream_frames(path))


def test_a_mask_video_goes_from_black_to_white(tmp_path):
    write_video(tmp_path / "a.mp4", grey_levels(3) * 127, codec="libx264", pix_fmt="yuv420p")
    mask = read_mask(tmp_path / "a.mp4")
    assert (mask.dtype, mask.shape) == (torch.float32, (3, 16, 32))
    assert mask.mean((1, 2)).tolist() == pytest.approx([0, 127 / 255, 254 / 255], abs=0.01)
    assert read_mask(tmp_path / "a.mp4", max_frames=2).shape[0] == 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_still_mask_is_one_frame_whatever_its_name(tmp_path, kind, mode):
    image = Image.new("L", (32, 16), 0)
    image.paste(255, (0, 0, 16, 16))
    image.convert(mode).save(tmp_path / "mask.mp4", kind)
    mask = read_mask(tmp_path / "mask.mp4")
    assert mask.shape == (1, 16, 32)
    assert mask[0, :, :15].min() > 0.99
    assert mask[0, :, 17:].max() < 0.01


def test_a_mask_of_neither_kind_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    write_wav(tmp_path / "a.wav", np.zeros((100, 1), np.int16))
    for name in ("a.png", "a.wav", "missing.png"):
        with pytest.raises(MediaError, match=name):
            read_mask(tmp_path / name)


def test_frames_are_let_go_without_the_garbage_collector(tmp_path):
    write_video(tmp_path / "long.mp4", grey_levels(240, height=360, width=640))
    process = psutil.Process()
    gc.disable()
    try:
        before = process.memory_info().rss
        for _ in stream_frames(tmp_path / "long.mp4"):
            pass
        grown = process.memory_info().rss - before
    finally:
        gc.enable()
    # All of them take 83 MB before they are RGB.
    assert grown < 40_000_000
