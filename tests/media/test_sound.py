"""Sound alone, as a file and as it is made."""

from collections.abc import Generator, Iterator
from dataclasses import replace

import av
import pytest
import torch
from torch import Tensor

from rayreel.errors import MediaError
from rayreel.media.audio import read_audio, read_soundtrack
from rayreel.media.mux import write_clip
from rayreel.media.sound import write_sound
from rayreel.types import Audio, Clip, ClipStream, SoundStream
from tests.media.samples import grey_levels, write_video

GENERATOR = torch.Generator().manual_seed(0)
SOUND = Audio(waveform=torch.rand(2, 23_456, generator=GENERATOR) - 0.5, sample_rate_hz=24000)
FRAMES = grey_levels(48, 32, 32)
KINDS = pytest.mark.parametrize("kind", ["wav", "m4a"])


def in_chunks(*lengths: int, sound: Audio = SOUND) -> SoundStream:
    return replace(sound.stream(), chunks=(part for part in sound.waveform.split(lengths, 1)))


def with_sound(audio: Audio | SoundStream | None, frames: Tensor = FRAMES) -> ClipStream:
    chunks = (chunk for chunk in frames.split(8))
    return ClipStream(frames=chunks, num_frames=len(frames), fps=24, audio=audio)


def failing(chunks: list[Tensor], closed: list[bool]) -> Generator[Tensor, None, None]:
    try:
        yield from chunks
        raise ZeroDivisionError
    finally:
        closed.append(True)


def same_pieces(length: int) -> list[int]:
    return [min(length, 23_456 - start) for start in range(0, 23_456, length)]


@KINDS
@pytest.mark.parametrize("num_samples", [1, 1023, 1024, 1025, 23_456])
@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
def test_a_sound_file_has_exactly_the_samples(tmp_path, kind, num_samples, rate):
    sound = Audio(waveform=SOUND.waveform[:, :num_samples], sample_rate_hz=rate)
    write_sound(tmp_path / "a", sound, format=kind)
    read = read_audio(tmp_path / "a")
    assert read is not None
    assert (read.waveform.shape, read.sample_rate_hz) == ((2, num_samples), rate)


def test_wav_holds_16_bit_samples_clipped_to_the_range(tmp_path):
    waveform = torch.tensor([[0.0, 1.0, 0.5, 3.0], [-1.0, -0.5, -2.0, 1e-6]])
    write_sound(tmp_path / "a.wav", Audio(waveform=waveform, sample_rate_hz=8000), format="wav")
    read = read_audio(tmp_path / "a.wav")
    assert read is not None
    levels = [[0, 32767, 16383, 32767], [-32767, -16383, -32767, 0]]
    assert (read.waveform * 32768).tolist() == levels
    with av.open(str(tmp_path / "a.wav")) as container:
        assert container.streams.audio[0].codec_context.name == "pcm_s16le"
    assert (tmp_path / "a.wav").stat().st_size == 44 + 4 * 4


def test_m4a_is_aac_in_step_with_its_index_first(tmp_path):
    time = torch.arange(24000) / 24000
    wave = 0.5 * torch.sin(2 * torch.pi * 440 * time)
    sound = Audio(waveform=torch.stack([wave, -wave]), sample_rate_hz=24000)
    write_sound(tmp_path / "a.m4a", sound, format="m4a")
    read = read_audio(tmp_path / "a.m4a")
    assert read is not None
    assert (read.waveform - sound.waveform)[:, 2048:-2048].abs().max() < 0.05
    data = (tmp_path / "a.m4a").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


@KINDS
@pytest.mark.parametrize("lengths", [(23_456,), (1, 23_455), (20_000, 0, 3_456)])
def test_chunks_do_not_change_a_sound_file(tmp_path, kind, lengths):
    write_sound(tmp_path / "whole", SOUND, format=kind)
    write_sound(tmp_path / "chunks", in_chunks(*lengths), format=kind)
    assert (tmp_path / "chunks").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("length", [23_456, 5000, 1024, 1000, 37])
@pytest.mark.parametrize("num_frames", [48, 20])
def test_chunks_of_sound_do_not_change_a_clip(tmp_path, length, num_frames):
    """With 20 frames, some of the sound is cut off."""
    frames = FRAMES[:num_frames]
    write_clip(tmp_path / "whole.mp4", Clip(frames=frames, fps=24, audio=SOUND))
    sound = in_chunks(*same_pieces(length))
    write_clip(tmp_path / "chunks.mp4", with_sound(sound, frames))
    assert (tmp_path / "chunks.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert next(sound.chunks, None) is None


def test_sound_and_frames_are_read_in_step(tmp_path):
    """Neither is ever far ahead of the other, however long the clip."""
    seconds = {"frames": 0.0, "sound": 0.0}
    leads = []

    def watched(name: str, chunks: Iterator[Tensor], per_chunk: float) -> Generator[Tensor]:
        for chunk in chunks:
            seconds[name] += per_chunk
            leads.append(seconds["sound"] - seconds["frames"])
            yield chunk

    frames = watched("frames", iter(FRAMES.repeat(20, 1, 1, 1).split(4)), 4 / 24)
    waveform = SOUND.waveform[:, :20_000].repeat(1, 48)
    chunks = watched("sound", iter(waveform.split(1000, 1)), 1000 / 24000)
    sound = SoundStream(chunks=chunks, num_samples=waveform.shape[1], sample_rate_hz=24000)
    clip = ClipStream(frames=frames, num_frames=48 * 20, fps=24, audio=sound)
    write_clip(tmp_path / "a.mp4", clip)
    assert seconds == pytest.approx({"frames": 40, "sound": 40})
    # A block of AAC ahead; behind by what the encoder looks ahead.
    assert max(leads) < 0.2
    assert min(leads) > -3


@KINDS
@pytest.mark.parametrize("announced", [23_455, 23_457, 99_999])
def test_another_number_of_samples_than_announced_is_an_error(tmp_path, kind, announced):
    sound = replace(in_chunks(20_000, 3_456), num_samples=announced)
    with pytest.raises(ValueError, match=f"announced {announced} samples and gave 23456"):
        write_sound(tmp_path / "a", sound, format=kind)
    sound = replace(in_chunks(20_000, 3_456), num_samples=announced)
    with pytest.raises(ValueError, match=f"announced {announced} samples and gave 23456"):
        write_clip(tmp_path / "a.mp4", with_sound(sound, FRAMES[:20]))


@pytest.mark.parametrize("odd", [torch.zeros(1, 9), torch.zeros(9), torch.zeros(2, 9).short()])
def test_a_chunk_that_is_no_float_stereo_is_an_error(tmp_path, odd):
    sound = replace(SOUND.stream(), chunks=(part for part in (SOUND.waveform[:, :100], odd)))
    with pytest.raises(ValueError, match="sound from sample 100 on is"):
        write_clip(tmp_path / "a.mp4", with_sound(sound))


@KINDS
def test_sound_that_cannot_be_encoded_is_refused(tmp_path, kind):
    shapes = [torch.zeros(1, 100), torch.zeros(2, 0), torch.full((2, 100), float("nan"))]
    for waveform in shapes:
        audio = Audio(waveform=waveform, sample_rate_hz=24000)
        with pytest.raises(MediaError, match=r"stereo|finite"):
            write_sound(tmp_path / "a", audio, format=kind)
    nan = replace(SOUND.stream(), chunks=(part for part in shapes[2:]))
    with pytest.raises(MediaError, match="finite"):
        write_sound(tmp_path / "a", nan, format=kind)
    with pytest.raises(MediaError, match="audio of 0 samples"):
        write_sound(tmp_path / "a", replace(nan, num_samples=0), format=kind)


def test_a_wav_that_would_be_too_large_is_refused_at_once(tmp_path):
    sound = replace(SOUND.stream(), num_samples=2**30)
    with pytest.raises(MediaError, match="less than 4 GiB; m4a does"):
        write_sound(tmp_path / "a.wav", sound, format="wav")
    assert not (tmp_path / "a.wav").exists()
    assert next(sound.chunks, None) is None


@KINDS
def test_a_missing_folder_is_not_the_sounds_fault(tmp_path, kind):
    with pytest.raises(FileNotFoundError):
        write_sound(tmp_path / "missing" / "a", SOUND, format=kind)


@KINDS
def test_a_sound_that_fails_is_heard_of_and_closed(tmp_path, kind):
    closed: list[bool] = []
    sound = replace(SOUND.stream(), chunks=failing([SOUND.waveform], closed))
    with pytest.raises(ZeroDivisionError):
        write_sound(tmp_path / "a", sound, format=kind)
    assert closed


def test_frames_that_fail_close_the_sound(tmp_path):
    closed: list[bool] = []
    sound = replace(SOUND.stream(), chunks=failing([SOUND.waveform[:, :2000]] * 9, closed))
    clip = replace(with_sound(sound), frames=failing([FRAMES], []))
    with pytest.raises(ZeroDivisionError):
        write_clip(tmp_path / "a.mp4", clip)
    assert next(sound.chunks, None) is None
    assert closed


def test_frames_that_are_refused_close_the_sound(tmp_path):
    sound = in_chunks(23_456)
    with pytest.raises(MediaError, match="0 frames"):
        write_clip(tmp_path / "a.mp4", with_sound(sound, FRAMES[:0]))
    assert next(sound.chunks, None) is None


def test_a_collected_stream_has_frames_and_sound():
    clip = with_sound(in_chunks(20_000, 3_456)).collect()
    assert torch.equal(clip.frames, FRAMES)
    assert clip.audio is not None
    assert torch.equal(clip.audio.waveform, SOUND.waveform)
    assert clip.audio.sample_rate_hz == 24000


def test_sound_alone_is_a_clip_without_frames():
    stream = replace(
        with_sound(in_chunks(23_456)), frames=(part for part in list[Tensor]()), num_frames=0
    )
    clip = stream.collect()
    assert clip.frames.shape == (0, 0, 0, 3)
    again = clip.stream().collect()
    assert (again.frames.shape, again.audio) == ((0, 0, 0, 3), clip.audio)


def test_collecting_frames_that_fail_closes_the_sound():
    sound = in_chunks(23_456)
    with pytest.raises(ZeroDivisionError):
        replace(with_sound(sound), frames=failing([FRAMES], [])).collect()
    assert next(sound.chunks, None) is None


@pytest.mark.parametrize(
    ("codec", "layout", "suffix"),
    [("libmp3lame", "stereo", "mp3"), ("flac", "mono", "flac"), ("pcm_s24le", "5.1", "wav")],
)
def test_part_of_a_pure_sound_file_keeps_its_channels(tmp_path, codec, layout, suffix):
    path = tmp_path / f"a.{suffix}"
    write_sound(tmp_path / "source.wav", SOUND, format="wav")
    with (
        av.open(str(tmp_path / "source.wav")) as source,
        av.open(str(path), "w") as output,
    ):
        stream = output.add_stream(codec, rate=24000, layout=layout)
        convert = av.AudioResampler(format=stream.format, layout=layout, rate=24000)
        for frame in source.decode(audio=0):
            for part in convert.resample(frame):
                output.mux(stream.encode(part))
        output.mux(stream.encode())
    audio = read_soundtrack(path, start_s=0.1, duration_s=0.25)
    assert audio.waveform.shape == ({"stereo": 2, "mono": 1, "5.1": 6}[layout], 6000)
    whole = read_audio(path)
    assert whole is not None
    assert torch.equal(whole.waveform[:, 2400:8400], audio.waveform)


def test_a_soundtrack_is_as_long_as_the_file_allows(tmp_path):
    write_sound(tmp_path / "a.m4a", SOUND, format="m4a")
    audio = read_soundtrack(tmp_path / "a.m4a", start_s=0.5, duration_s=9)
    assert audio.waveform.shape == (2, 23_456 - 12_000)
    assert read_soundtrack(tmp_path / "a.m4a", start_s=0, duration_s=1e-9).waveform.numel() == 2


def test_a_soundtrack_that_is_not_there_is_an_error(tmp_path):
    write_video(tmp_path / "silent.mkv", FRAMES)
    with pytest.raises(MediaError, match=r"silent\.mkv has no sound"):
        read_soundtrack(tmp_path / "silent.mkv", start_s=0, duration_s=1)
    write_sound(tmp_path / "a.wav", SOUND, format="wav")
    with pytest.raises(MediaError, match=r"a\.wav ends at 0.977333 s; .* not at 5 s"):
        read_soundtrack(tmp_path / "a.wav", start_s=5, duration_s=1)
    for bounds in ({"start_s": -1, "duration_s": 1}, {"start_s": 0, "duration_s": 0}):
        with pytest.raises(ValueError, match="expected a start of at least 0"):
            read_soundtrack(tmp_path / "a.wav", **bounds)
