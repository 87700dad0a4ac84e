import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from rayreel.errors import MediaError
from rayreel.media.audio import read_audio
from rayreel.media.container import probe
from rayreel.media.mux import write_clip
from rayreel.media.video import read_clip
from rayreel.types import Audio, Clip
from tests.media.samples import grey_levels, write_video, write_wav


def noise_clip(num_frames: int = 17) -> Clip:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (num_frames, 64, 64, 3), generator=generator).byte()
    sound = torch.rand(2, num_frames * 1000, generator=generator) - 0.5
    return Clip(frames=frames, fps=24, audio=Audio(waveform=sound, sample_rate_hz=24000))


@pytest.fixture
def clip_path(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", noise_clip())
    return tmp_path / "clip.mp4"


def test_max_frames_limits_frames_and_sound(clip_path):
    whole, part = read_clip(clip_path), read_clip(clip_path, max_frames=5)
    assert torch.equal(part.frames, whole.frames[:5])
    assert part.audio is not None
    assert part.audio.waveform.shape == (2, 5000)


def test_more_frames_than_there_are_gives_all(clip_path):
    assert len(read_clip(clip_path, max_frames=100).frames) == 17


def test_part_of_the_sound_is_cut_exact_to_the_sample(clip_path):
    whole, part = read_audio(clip_path), read_audio(clip_path, start_s=0.3, max_duration_s=0.1)
    assert whole is not None
    assert part is not None
    assert torch.equal(part.waveform, whole.waveform[:, 7200:9600])


def test_sound_can_be_left_out(clip_path):
    assert read_clip(clip_path, sound=False).audio is None


def test_sound_after_its_end_is_empty(clip_path):
    audio = read_audio(clip_path, start_s=9)
    assert audio is not None
    assert audio.waveform.shape == (2, 0)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_integer_samples_are_scaled_and_channels_kept(tmp_path, channels):
    samples = np.arange(-100, 100, dtype=np.int16).repeat(channels).reshape(-1, channels) * 300
    write_wav(tmp_path / "a.wav", samples)
    audio = read_audio(tmp_path / "a.wav")
    assert audio is not None
    assert audio.sample_rate_hz == 8000
    assert torch.equal(audio.waveform, torch.from_numpy(samples.T / 32768).float())


def test_8_bit_samples_are_centred(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([[0], [128], [192]], dtype=np.uint8))
    audio = read_audio(tmp_path / "a.wav")
    assert audio is not None
    assert audio.waveform.tolist() == [[-1, 0, 0.5]]


def test_matroska_is_counted_and_read(tmp_path):
    path = tmp_path / "a.mkv"
    write_video(path, grey_levels(7) * 30)
    info = probe(path)
    assert (info.num_frames, info.fps, info.duration_s) == (7, 24, 7 / 24)
    assert read_clip(path).frames[:, 0, 0, 0].tolist() == [0, 30, 60, 90, 120, 150, 180]


def test_sound_that_starts_late_stays_in_step(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = 16, 16, "bgr0"
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        ones = av.AudioFrame.from_ndarray(np.full((1, 2000), 16384, np.int16), layout="mono")
        ones.sample_rate, ones.pts = 8000, 4000
        container.mux(audio.encode(ones))
        container.mux(video.encode())
        container.mux(audio.encode())
    clip = read_clip(path)
    assert clip.audio is not None
    assert clip.audio.waveform[0, :4000].eq(0).all()
    assert clip.audio.waveform[0, 4000:].tolist() == [0.5] * 2000


def test_a_file_without_video_is_refused_by_name(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros((100, 1), np.int16))
    for read in (probe, read_clip):
        with pytest.raises(MediaError, match=r"a\.wav has no video"):
            read(tmp_path / "a.wav")


@pytest.mark.parametrize("read", [probe, read_clip, read_audio])
def test_missing_and_foreign_files_are_refused_by_name(tmp_path, read):
    (tmp_path / "notes.mp4").write_text("not a video")
    for name in ("notes.mp4", "missing.mp4"):
        with pytest.raises(MediaError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("read", [probe, read_clip, read_audio])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused_by_name(clip_path, read, kept):
    data = clip_path.read_bytes()
    clip_path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        read(clip_path)


def test_sound_of_eight_channels_is_read_whole(tmp_path):
    levels = np.arange(8, dtype=np.int16) * 1000
    with wave.open(str(tmp_path / "round.wav"), "wb") as file:
        file.setnchannels(8)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.tile(levels, (3000, 1)).astype("<i2").tobytes())
    audio = read_audio(tmp_path / "round.wav")
    assert audio is not None
    assert audio.waveform.shape == (8, 3000)
    assert torch.equal(audio.waveform[:, 1500] * 32768, torch.arange(8.0) * 1000)
