"""Media files to pixels, waveforms and masks as networks take them, and to latents."""

import numpy as np
import pytest
import torch
from PIL import Image

from rayreel.checkpoints.tiny import locate_model
from rayreel.data.samples import Mask
from rayreel.errors import MediaError
from rayreel.pipelines.devices import Device
from rayreel.pipelines.encoding import (
    encode_pictures,
    encode_sounds,
    read_audio_mask,
    read_picture,
    read_sound,
    read_video_mask,
    sound_steps,
    training_tiles,
)
from rayreel.pipelines.ledger import ModelLedger
from rayreel.types import ScaleFactors
from tests.media.samples import grey_levels, write_video, write_wav
from tests.pipelines.media import grey_clip, picture, sound, tone

FACTORS = ScaleFactors()


@pytest.fixture
def config(ledger):
    return ledger.files.audio_vae


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def levels(pixels):
    """Brightness of frames that are of one colour, as their numbers."""
    assert torch.equal(pixels, pixels[:1, :, :1, :1].expand_as(pixels))
    return ((pixels[0, :, 0, 0] + 1) * 127.5).round().int().tolist()


class TestPictures:
    def test_frames_are_those_of_the_stretch(self, tmp_path):
        clip = grey_clip(tmp_path / "a.mkv", num_frames=40)
        pixels = read_picture(clip, picture(clip, start=5))
        assert pixels.shape == (3, 9, 64, 96)
        assert pixels.dtype == torch.float32
        assert levels(pixels) == list(range(5, 14))

    def test_a_stride_takes_the_first_frame_and_then_one_of_so_many(self, tmp_path):
        clip = grey_clip(tmp_path / "a.mkv", num_frames=40)
        assert levels(read_picture(clip, picture(clip, start=2, stride=4))) == [
            *(2, 3, 7, 11, 15, 19, 23, 27, 31)
        ]

    def test_the_part_that_the_crop_names_is_kept(self, tmp_path):
        frames = torch.zeros(1, 64, 128, 3, dtype=torch.uint8)
        frames[:, :, 32:] = 255
        write_video(tmp_path / "a.mkv", frames)
        clip = tmp_path / "a.mkv"
        left, right = (
            read_picture(clip, picture(clip, bucket="64x64x1", crop=(0, column)))
            for column in (0, 64)
        )
        assert left[..., :32].eq(-1).all()
        assert left[..., 32:].eq(1).all()
        assert right.eq(1).all()

    def test_a_still_is_one_frame(self, tmp_path):
        Image.new("RGB", (192, 128), (255, 0, 0)).save(tmp_path / "a.png")
        pixels = read_picture(tmp_path / "a.png", picture(tmp_path / "a.png", bucket="96x64x1"))
        assert pixels.shape == (3, 1, 64, 96)
        torch.testing.assert_close(pixels[0], torch.ones(1, 64, 96))
        torch.testing.assert_close(pixels[1:], -torch.ones(2, 1, 64, 96))

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"start": 2}, "8 frames from frame 2 on; expected 9"),
            ({"stride": 2}, "6 frames, one of 2, from frame 0 on; expected 9"),
        ],
    )
    def test_a_clip_that_decodes_to_fewer_frames_is_refused(self, tmp_path, fields, why):
        clip = grey_clip(tmp_path / "a.mkv", num_frames=10)
        with pytest.raises(MediaError, match=rf"a\.mkv has {why}"):
            read_picture(clip, picture(clip, **fields))


class TestSounds:
    def test_samples_are_those_of_the_stretch(self, tmp_path, config):
        track = tone(tmp_path / "a.wav", seconds=2)
        waveform, note = read_sound(track, sound(track, start_s=0.5), config)
        t = torch.arange(8000, 24000, dtype=torch.float64) / 16000
        expected = (torch.sin(2 * torch.pi * 440 * t) * torch.tensor([[0.5], [0.25]])).float()
        torch.testing.assert_close(waveform, expected, rtol=0, atol=1e-4)
        assert note is None

    @pytest.mark.parametrize("channels", [1, 6])
    def test_any_channels_become_two(self, tmp_path, config, channels):
        track = tone(tmp_path / "a.wav", channels=channels)
        waveform, _ = read_sound(track, sound(track), config)
        assert waveform.shape == (2, 16000)
        assert waveform.abs().amax(dim=1).gt(0.1).all()

    @pytest.mark.parametrize(("start_s", "lacking"), [(0.0, 0.4), (0.3, 0.7), (5.0, 1.0)])
    def test_what_a_file_lacks_is_silence_and_a_note(self, tmp_path, config, start_s, lacking):
        track = tone(tmp_path / "a.wav", seconds=0.6)
        waveform, note = read_sound(track, sound(track, start_s=start_s), config)
        assert waveform.shape == (2, 16000)
        assert waveform[:, round((1 - lacking) * 16000) :].eq(0).all()
        assert note == f"its sound lacks the last {lacking:g} s: silence"

    @pytest.mark.parametrize(
        ("frames", "fps", "mel", "steps"),
        [(121, 24, 505, 127), (121, 25, 485, 122), (89, 24, 371, 93), (49, 25, 197, 50)],
    )
    @pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
    def test_lengths_are_those_of_the_public_trainer(
        self, tmp_path, config, frames, fps, mel, steps, rate
    ):
        track = tone(tmp_path / "a.wav", seconds=6, rate=rate)
        stretch = sound(track, duration_s=frames / fps)
        waveform, _ = read_sound(track, stretch, config)
        assert 1 + waveform.shape[1] // 160 == mel
        assert sound_steps(config, stretch.duration_s) == steps

    def test_files_of_any_rate_give_as_many_mel_frames(self, tmp_path, config):
        durations = [9 / 60, 33 * 1001 / 60000, 17 / 23.976, 1 / 3]
        for rate in (8000, 11025, 22050, 44100, 96000):
            track = tone(tmp_path / f"{rate}.wav", rate=rate)
            for duration in durations:
                waveform, _ = read_sound(track, sound(track, duration_s=duration), config)
                assert waveform.shape[1] // 160 == int(duration * 16000 + 1e-6) // 160

    def test_a_file_without_sound_is_refused(self, tmp_path, config):
        clip = grey_clip(tmp_path / "a.mkv")
        with pytest.raises(MediaError, match=r"a\.mkv has no sound"):
            read_sound(clip, sound(clip), config)

    def test_a_stretch_that_is_too_short_for_the_encoder_is_refused(self, tmp_path, config):
        track = tone(tmp_path / "a.wav")
        with pytest.raises(MediaError, match=r"0\.03 s of .* too short .* more than 0\.032 s"):
            read_sound(track, sound(track, duration_s=0.03), config)

    def test_samples_that_are_no_numbers_are_refused(self, tmp_path, config):
        path = tmp_path / "a.wav"
        write_wav(path, np.zeros((16000, 2), np.int32), 16000)
        data = bytearray(path.read_bytes())
        # Samples as 32-bit floats, one of them not a number.
        data[20:22] = (3).to_bytes(2, "little")
        data[-4:] = np.float32(np.nan).tobytes()
        path.write_bytes(data)
        with pytest.raises(MediaError, match="not finite"):
            read_sound(path, sound(path), config)


class TestVideoMasks:
    def mask(self, path, *, bucket="96x64x9", start=0, **fields):
        target = picture(path, bucket=bucket, **fields)
        of = Mask(source=str(path), content="m", start=start, of=target)
        return read_video_mask(path, of, FACTORS)

    def test_a_still_stands_for_all_frames(self, tmp_path):
        pixels = np.zeros((32, 48, 3), np.uint8)
        pixels[:, 32:] = 255
        Image.fromarray(pixels).save(tmp_path / "m.png")
        mask = self.mask(tmp_path / "m.png")
        assert mask.dtype == torch.float32
        assert mask.tolist() == 2 * [2 * [[0, 0, 1]]]

    def test_the_whole_mask_counts_whatever_the_crop(self, tmp_path):
        frames = torch.zeros(9, 64, 192, 3, dtype=torch.uint8)
        frames[:, :, :64] = 255
        write_video(tmp_path / "m.mkv", frames)
        assert self.mask(tmp_path / "m.mkv", crop=(0, 48))[0].tolist() == 2 * [[1, 0, 0]]

    def test_a_position_is_kept_if_it_is_white_in_any_frame_of_its_group(self, tmp_path):
        frames = torch.zeros(17, 64, 96, 3, dtype=torch.uint8)
        frames[15] = 255
        write_video(tmp_path / "m.mkv", frames)
        whole = self.mask(tmp_path / "m.mkv", bucket="96x64x17")
        assert whole[:, 0, 0].tolist() == [0, 1, 0]
        assert self.mask(tmp_path / "m.mkv", start=8)[:, 0, 0].tolist() == [1, 0]
        assert self.mask(tmp_path / "m.mkv", stride=2)[:, 0, 0].tolist() == [0, 1]

    def test_half_grey_is_not_kept(self, tmp_path):
        for level, kept in ((127, 0), (128, 1)):
            Image.new("RGB", (96, 64), (level,) * 3).save(tmp_path / "m.png")
            assert self.mask(tmp_path / "m.png").unique().tolist() == [kept]

    def test_a_mask_that_is_shorter_than_its_picture_is_refused(self, tmp_path):
        write_video(tmp_path / "m.mkv", grey_levels(8, 64, 96))
        with pytest.raises(MediaError, match=r"m\.mkv has 8 frames from frame 0 on; expected 9"):
            self.mask(tmp_path / "m.mkv")


class TestAudioMasks:
    def mask(self, path, config, **fields):
        return read_audio_mask(
            path, Mask(source=str(path), content="m", of=sound(path, **fields)), config
        )

    @pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"mask": x}, lambda x: {"other": x}])
    def test_a_saved_tensor_is_spread_over_the_steps(self, tmp_path, config, wrap):
        torch.save(wrap(torch.tensor([[0, 1.0]])), tmp_path / "m.pt")
        mask, note = self.mask(tmp_path / "m.pt", config)
        assert mask.dtype == torch.float32
        assert mask.tolist() == 13 * [0] + 13 * [1]
        assert note is None

    def test_of_a_sound_the_same_stretch_counts(self, tmp_path, config):
        samples = np.zeros((3 * 8000, 1), np.int16)
        samples[12000:20000] = 32767
        write_wav(tmp_path / "m.wav", samples, 8000)
        mask, _ = self.mask(tmp_path / "m.wav", config, start_s=1.0)
        assert mask.tolist() == 13 * [0] + 13 * [1]

    def test_what_a_sound_lacks_is_not_kept_with_a_note(self, tmp_path, config):
        write_wav(tmp_path / "m.wav", np.full((4000, 1), 32767, np.int16), 8000)
        mask, note = self.mask(tmp_path / "m.wav", config)
        assert mask.tolist() == 13 * [1] + 13 * [0]
        assert note is not None

    @pytest.mark.parametrize("content", [b"", b"not a tensor", b"PK\3\4broken"])
    def test_a_file_that_is_no_tensor_is_refused(self, tmp_path, config, content):
        (tmp_path / "m.pt").write_bytes(content)
        with pytest.raises(MediaError, match=r"m\.pt"):
            self.mask(tmp_path / "m.pt", config)

    @pytest.mark.parametrize("saved", [{}, {"mask": "abc"}, torch.zeros(0)])
    def test_a_file_without_values_is_refused(self, tmp_path, config, saved):
        torch.save(saved, tmp_path / "m.pt")
        with pytest.raises(MediaError, match="no tensor with values"):
            self.mask(tmp_path / "m.pt", config)


class TestEncoding:
    def test_pictures_of_one_size_share_a_call_and_come_back_in_order(self, ledger):
        pixels = [noise(9, 64, 96), noise(1, 64, 64, seed=1), noise(9, 64, 96, seed=2)]
        seen = []
        with ledger.video_encoder() as encoder:
            handle = encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
            latents = encode_pictures(ledger, pixels, tiled=False)
            handle.remove()
            alone = [encoder(one[None])[0] for one in pixels]
        assert sorted(seen) == [1, 2]
        assert [latent.shape for latent in latents] == [(16, 2, 2, 3), (16, 1, 2, 2), (16, 2, 2, 3)]
        for ours, expected in zip(latents, alone, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)

    def test_a_part_of_a_batch_gives_the_same_bits_if_it_is_filled_up(self, ledger):
        pixels = [noise(9, 64, 96, seed=seed) for seed in range(4)]
        waves = [noise(16000, seed=seed)[:2] for seed in range(4)]
        whole = encode_pictures(ledger, pixels, tiled=False), encode_sounds(ledger, waves)
        part = (
            encode_pictures(ledger, pixels[2:3], tiled=False, fill=4),
            encode_sounds(ledger, waves[2:3], fill=4),
        )
        for (ours,), expected in zip(part, whole, strict=True):
            assert torch.equal(ours, expected[2])

    def test_sounds_from_files_of_any_rate_share_a_call(self, ledger, config, tmp_path):
        tracks = [tone(tmp_path / f"{rate}.wav", rate=rate) for rate in (16000, 44100)]
        waves = [read_sound(track, sound(track, duration_s=17 / 24), config)[0] for track in tracks]
        seen = []
        with ledger.audio_encoder() as encoder:
            handle = encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
            one, other = encode_sounds(ledger, waves)
            handle.remove()
        assert seen == [2]
        assert one.shape == (2, sound_steps(config, 17 / 24), 16)
        assert (one - other).norm() < 0.05 * one.norm()

    def test_sound_is_encoded_in_float32_alone(self):
        ledger = ModelLedger(locate_model("tiny"), Device("cpu", "bfloat16", "for tests"))
        with pytest.raises(ValueError, match="float32"):
            encode_sounds(ledger, [torch.zeros(2, 16000)])

    def test_pictures_are_encoded_in_the_dtype_of_the_ledger(self):
        ledger = ModelLedger(locate_model("tiny"), Device("cpu", "bfloat16", "for tests"))
        (latent,) = encode_pictures(ledger, [noise(1, 64, 64)], tiled=False)
        assert latent.dtype == torch.bfloat16


class TestTiles:
    @pytest.mark.parametrize(
        ("extent", "starts"), [(16, [0]), (17, [0, 1]), (28, [0, 12]), (30, [0, 12, 14])]
    )
    def test_the_last_tile_is_moved_back_to_the_edge(self, extent, starts):
        spans = training_tiles((1, 2, extent), FACTORS).width.spans
        assert [span.target.start for span in spans] == starts
        assert {span.target.stop - span.target.start for span in spans} == {16}
        assert [(span.source.start, span.source.stop) for span in spans] == [
            (32 * start, 32 * start + 512) for start in starts
        ]

    def test_time_is_never_cut_and_a_finer_encoder_blends_over_more_positions(self):
        plan = training_tiles((31, 40, 40), ScaleFactors(4, 16, 16))
        (time,) = plan.time.spans
        assert (time.source, time.target) == (slice(0, 121), slice(0, 31))
        ramp = torch.linspace(0, 1, 10)[1:-1]
        torch.testing.assert_close(
            plan.width.spans[0].mask, torch.cat([torch.ones(24), ramp.flip(0)])
        )

    def test_tiles_are_averaged_as_the_public_trainer_does(self, ledger):
        pixels = noise(1, 544, 576)
        (latent,) = encode_pictures(ledger, [pixels], tiled=True)
        total, weight = torch.zeros(16, 1, 17, 18), torch.zeros(17, 18)
        ramp = torch.linspace(0, 1, 6)[1:-1]
        for top in (0, 1):
            for left in (0, 2):
                rows, columns = torch.ones(16), torch.ones(16)
                for mask, start in ((rows, top), (columns, left)):
                    part = slice(0, 4) if start else slice(12, 16)
                    mask[part] = ramp if start else ramp.flip(0)
                cut = pixels[..., 32 * top : 32 * top + 512, 32 * left : 32 * left + 512]
                (tile,) = encode_pictures(ledger, [cut], tiled=False)
                mask = rows[:, None] * columns
                total[..., top : top + 16, left : left + 16] += tile * mask
                weight[top : top + 16, left : left + 16] += mask
        torch.testing.assert_close(latent, total / (weight + 1e-8), rtol=1e-4, atol=1e-5)

    def test_tiles_come_near_the_whole_and_equal_it_away_from_seams(self, ledger):
        """Measured with random weights, of noise: 0.07 of the norm; nothing 7 positions away."""
        pixels = [noise(1, 512, 1024)]
        (whole,) = encode_pictures(ledger, pixels, tiled=False)
        (tiled,) = encode_pictures(ledger, pixels, tiled=True)
        assert 0 < (tiled - whole).norm() < 0.1 * whole.norm()
        torch.testing.assert_close(tiled[..., :10], whole[..., :10], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tiled[..., 28:], whole[..., 28:], rtol=1e-4, atol=1e-5)

    def test_what_fits_one_tile_is_not_tiled(self, ledger):
        pixels = [noise(9, 512, 64)]
        (whole,), (tiled,) = (encode_pictures(ledger, pixels, tiled=t) for t in (False, True))
        assert torch.equal(whole, tiled)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_part_of_a_batch_gives_the_same_bits_on_a_gpu_too(dtype):
    ledger = ModelLedger(locate_model("tiny"), Device("cuda", dtype, "for tests"))
    pixels = [noise(9, 256, 384, seed=seed) for seed in range(8)]
    whole = encode_pictures(ledger, pixels, tiled=False)
    for part in (slice(3, 4), slice(2, 7)):
        some = encode_pictures(ledger, pixels[part], tiled=False, fill=8 / len(pixels[part]))
        assert all(torch.equal(a, b) for a, b in zip(some, whole[part], strict=True))
