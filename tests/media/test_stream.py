"""Clips that are written while they are made."""

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.container import probe
from rayreel.media.mux import write_clip
from rayreel.types import Audio, Clip, ClipStream

GENERATOR = torch.Generator().manual_seed(0)
FRAMES = torch.randint(256, (23, 96, 128, 3), generator=GENERATOR, dtype=torch.uint8)
SOUND = Audio(waveform=torch.rand(2, 48000, generator=GENERATOR) / 2, sample_rate_hz=24000)
CLIP = Clip(frames=FRAMES, fps=30000 / 1001, audio=SOUND)


def in_chunks(*lengths: int, clip: Clip = CLIP) -> ClipStream:
    return replace(clip.stream(), frames=(chunk for chunk in clip.frames.split(lengths)))


def failing(chunks: list[Tensor], closed: list[bool]) -> Generator[Tensor, None, None]:
    try:
        yield from chunks
        raise ZeroDivisionError
    finally:
        closed.append(True)


@pytest.mark.parametrize("lengths", [(23,), (8, 8, 7), (1, 20, 2), (1,) * 23])
def test_chunks_do_not_change_the_file(tmp_path, lengths):
    write_clip(tmp_path / "whole.mp4", CLIP)
    write_clip(tmp_path / "chunks.mp4", in_chunks(*lengths))
    assert (tmp_path / "chunks.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert probe(tmp_path / "chunks.mp4").num_frames == 23


def test_collected_chunks_are_the_clip():
    clip = in_chunks(8, 8, 7).collect()
    assert torch.equal(clip.frames, FRAMES)
    assert (clip.fps, clip.audio) == (CLIP.fps, SOUND)


def test_frames_are_read_as_they_are_encoded(tmp_path):
    """The encoder holds some frames back, but far from all of them."""
    path = tmp_path / "a.mp4"
    long = Clip(frames=FRAMES.repeat(8, 1, 1, 1), fps=24)
    written = []

    def watched() -> Generator[Tensor, None, None]:
        for chunk in long.frames.split(8):
            written.append(path.stat().st_size if path.exists() else 0)
            yield chunk

    write_clip(path, replace(long.stream(), frames=watched()))
    assert len(written) == 23
    assert written[-1] > path.stat().st_size / 2


@pytest.mark.parametrize("announced", [22, 24])
def test_another_number_of_frames_than_announced_is_an_error(tmp_path, announced):
    stream = replace(in_chunks(20, 3), num_frames=announced)
    with pytest.raises(ValueError, match=f"announced {announced} frames and gave 23"):
        write_clip(tmp_path / "a.mp4", stream)


@pytest.mark.parametrize(
    "odd", [FRAMES[:2, :64], FRAMES[:2].float(), FRAMES[:2, ..., :1], FRAMES[0]]
)
def test_a_chunk_unlike_the_first_is_an_error(tmp_path, odd):
    frames = (chunk for chunk in (FRAMES[:8], odd))
    with pytest.raises(ValueError, match="frames from 8 on are"):
        write_clip(tmp_path / "a.mp4", replace(CLIP.stream(), frames=frames))


def test_a_stream_without_frames_is_refused(tmp_path):
    frames = (chunk for chunk in FRAMES[:0].split(1)[:0])
    empty = replace(CLIP.stream(), num_frames=0, frames=frames)
    with pytest.raises(MediaError, match="0 frames"):
        write_clip(tmp_path / "a.mp4", empty)
    assert not (tmp_path / "a.mp4").exists()


def test_a_failing_decoder_is_heard_of(tmp_path):
    closed: list[bool] = []
    frames = failing([FRAMES[:8]], closed)
    with pytest.raises(ZeroDivisionError):
        write_clip(tmp_path / "a.mp4", replace(CLIP.stream(), frames=frames))
    assert closed


def test_a_failing_encoder_closes_the_stream(tmp_path):
    closed: list[bool] = []
    frames = failing([FRAMES[:8]] * 3, closed)
    bad = Audio(waveform=SOUND.waveform, sample_rate_hz=12345)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        write_clip(tmp_path / "a.mp4", replace(CLIP.stream(), frames=frames, audio=bad))
    assert closed
    assert next(frames, None) is None


def test_a_moving_picture_is_encoded_the_same_each_time(tmp_path):
    """Long and smooth enough for x264 to look ahead and to follow blocks from frame to frame."""
    noise = torch.rand(1, 3, 6, 8, 8, generator=GENERATOR)
    video = F.interpolate(noise, size=(60, 160, 192), mode="trilinear")[0].permute(1, 2, 3, 0)
    frames = (255 * video + 10 * torch.rand(video.shape, generator=GENERATOR)).clamp(0, 255).byte()
    for name in "abcd":
        write_clip(tmp_path / f"{name}.mp4", Clip(frames=frames, fps=24))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
