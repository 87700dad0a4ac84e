from fractions import Fraction

import av
import pytest
import torch

from rayreel.errors import MediaError
from rayreel.media.container import probe
from rayreel.media.mux import frame_rate, write_clip
from rayreel.media.video import read_clip
from rayreel.types import Audio, Clip

NTSC = 30000 / 1001


def moving_square(num_frames: int = 9, height: int = 64, width: int = 96) -> torch.Tensor:
    frames = torch.full((num_frames, height, width, 3), 40, dtype=torch.uint8)
    for index in range(num_frames):
        frames[index, 16:48, 4 * index : 4 * index + 32] = torch.tensor([220, 60, 30]).byte()
    return frames


def tone(seconds: float, rate: int = 24000) -> Audio:
    time = torch.arange(round(seconds * rate)) / rate
    wave = 0.5 * torch.sin(2 * torch.pi * 440 * time)
    return Audio(waveform=torch.stack([wave, -wave]), sample_rate_hz=rate)


@pytest.mark.parametrize("fps", [24.0, 24000 / 1001, NTSC, 23.976, 12.5, 60.0])
@pytest.mark.parametrize("num_frames", [1, 9, 33])
def test_file_has_exactly_the_clips_frames_and_rate(tmp_path, fps, num_frames):
    path = tmp_path / "clip.mp4"
    write_clip(path, Clip(frames=moving_square(num_frames), fps=fps, audio=tone(0.7)))
    info = probe(path)
    assert (info.width, info.height, info.num_frames) == (96, 64, num_frames)
    assert info.fps == pytest.approx(fps, rel=1e-12)
    assert info.duration_s == pytest.approx(num_frames / fps, rel=1e-12)
    assert len(read_clip(path).frames) == num_frames


def test_frame_times_are_exact(tmp_path):
    write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(), fps=NTSC))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    times = [Fraction(frame.pts or 0) * (frame.time_base or 0) for frame in frames]
    assert times == [index * Fraction(1001, 30000) for index in range(9)]


def test_colours_come_back(tmp_path):
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [90, 90, 90]])
    frames = colours.byte()[:, None, None].expand(5, 32, 32, 3)
    write_clip(tmp_path / "a.mp4", Clip(frames=frames, fps=24), crf=1)
    decoded = read_clip(tmp_path / "a.mp4").frames
    assert (decoded.int() - frames.int()).abs().max() <= 6


def test_file_says_bt709_limited_range(tmp_path):
    write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(1), fps=24))
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1


def test_index_comes_before_the_data(tmp_path):
    write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(), fps=24, audio=tone(0.3)))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_same_clip_gives_the_same_bytes(tmp_path):
    clip = Clip(frames=moving_square(), fps=24, audio=tone(0.3))
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, clip)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_lower_crf_is_closer(tmp_path):
    frames = torch.randint(
        0, 256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(0)
    ).byte()
    errors = []
    for crf in (10, 40):
        write_clip(tmp_path / "a.mp4", Clip(frames=frames, fps=24), crf=crf)
        errors.append((read_clip(tmp_path / "a.mp4").frames.float() - frames).abs().mean())
    assert errors[0] < errors[1]


def test_clip_without_audio_has_no_audio_track(tmp_path):
    write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(), fps=24))
    assert not probe(tmp_path / "a.mp4").has_audio
    assert read_clip(tmp_path / "a.mp4").audio is None


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
def test_sound_comes_back_in_step(tmp_path, rate):
    written = tone(0.3, rate)
    write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(), fps=24, audio=written))
    read = read_clip(tmp_path / "a.mp4").audio
    assert read is not None
    assert read.sample_rate_hz == rate
    assert read.waveform.shape == written.waveform.shape
    middle = slice(2048, -2048)
    assert (read.waveform - written.waveform)[:, middle].abs().max() < 0.05


def test_longer_sound_is_cut_and_shorter_sound_left(tmp_path):
    lengths = []
    for seconds in (0.2501, 5.0):
        clip = Clip(frames=moving_square(17), fps=NTSC, audio=tone(seconds))
        write_clip(tmp_path / "a.mp4", clip)
        audio = read_clip(tmp_path / "a.mp4").audio
        assert audio is not None
        lengths.append(audio.waveform.shape[1])
    assert lengths == [6002, round(17 * 1001 / 30000 * 24000)]


def test_too_loud_sound_is_clipped_not_wrapped(tmp_path):
    loud = Audio(waveform=tone(0.3).waveform * 4, sample_rate_hz=24000)
    write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(), fps=24, audio=loud))
    audio = read_clip(tmp_path / "a.mp4").audio
    assert audio is not None
    expected = loud.waveform.clamp(-1, 1)
    assert (audio.waveform - expected)[:, 2048:-2048].abs().mean() < 0.1


@pytest.mark.parametrize("shape", [(9, 63, 96, 3), (9, 64, 95, 3), (0, 64, 96, 3), (9, 0, 96, 3)])
def test_sizes_that_h264_cannot_hold_are_refused(tmp_path, shape):
    frames = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(MediaError, match=f"{shape[2]}x{shape[1]}"):
        write_clip(tmp_path / "a.mp4", Clip(frames=frames, fps=24))
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(1, 100), "stereo"),
        (torch.zeros(2, 0), "stereo"),
        (torch.full((2, 100), float("nan")), "finite"),
    ],
)
def test_sound_that_cannot_be_encoded_is_refused(tmp_path, waveform, message):
    audio = Audio(waveform=waveform, sample_rate_hz=24000)
    with pytest.raises(MediaError, match=message):
        write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(1), fps=24, audio=audio))


def test_sample_rate_unknown_to_aac_is_refused(tmp_path):
    with pytest.raises(MediaError, match=r"a\.mp4"):
        write_clip(tmp_path / "a.mp4", Clip(frames=moving_square(1), fps=24, audio=tone(1, 12345)))


def test_missing_folder_is_not_the_clips_fault(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_clip(tmp_path / "missing" / "a.mp4", Clip(frames=moving_square(1), fps=24))


def test_float_frames_are_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        write_clip(tmp_path / "a.mp4", Clip(frames=torch.zeros(1, 64, 64, 3), fps=24))


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_frame_rates_are_refused(fps):
    with pytest.raises(MediaError, match="fps"):
        frame_rate(fps)
