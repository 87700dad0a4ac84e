"""Audio VAE, mel front end, resampler and vocoder, without weights from a file."""

import math

import pytest
import torch
from torch import Tensor, nn

from rayreel.checkpoints.builder import build
from rayreel.config.model import AudioVAEConfig, VocoderConfig
from rayreel.models.audio_vae import (
    AudioDecoder,
    AudioEncoder,
    encode_waveform,
    log_mel,
    resample,
    to_stereo,
)
from rayreel.models.vocoder import (
    BandwidthExtendedVocoder,
    Vocoder,
    decode_audio,
    make_vocoder,
)

OFFICIAL_NETWORK = {"attn_resolutions": [], "mid_block_add_attention": False, "mel_bins": 64}
AMP = {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}


def audio_config(**network) -> AudioVAEConfig:
    return AudioVAEConfig.model_validate(
        {"model": {"params": {"ddconfig": OFFICIAL_NETWORK | network}}}
    )


def nested_config(channels: int, bwe_channels: int, **blocks) -> VocoderConfig:
    first = (
        AMP
        | blocks
        | {
            "upsample_initial_channel": channels,
            "upsample_rates": [5, 2, 2, 2, 2, 2],
            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
        }
    )
    second = (
        AMP
        | blocks
        | {
            "upsample_initial_channel": bwe_channels,
            "upsample_kernel_sizes": [12, 11, 4, 4, 4],
            "output_sampling_rate": 48000,
        }
    )
    return VocoderConfig.model_validate({"vocoder": first, "bwe": second})


SMALL = audio_config(ch=32, mel_bins=16)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def sine(shape: tuple[int, ...], k: int) -> Tensor:
    """Deterministic values of the specification's appendix A."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7 * n + 1.3 * k + 0.5).float().reshape(shape)


def hashed(shape: tuple[int, ...], k: int) -> Tensor:
    """Deterministic noise of the specification's appendix A."""
    n = torch.arange(math.prod(shape))
    h = (n * 1103515245 + k * 12345 + 1) % 2**31
    h = ((h ^ (h >> 13)) * 1597334677) % 2**31
    return (h / 2**30 - 1).float().reshape(shape)


def key_of(name: str) -> int:
    return sum(map(ord, name)) % 101


def sine_filled(name: str, stored: Tensor, scale: float) -> Tensor:
    values = sine(tuple(stored.shape), key_of(name))
    return 1 + 0.2 * values if name.endswith("std-of-means") else scale * values


def hash_filled(name: str, stored: Tensor, gain: float) -> Tensor:
    u = hashed(tuple(stored.shape), key_of(name))
    if name.endswith(".filter"):
        return stored
    if name.endswith("mel_stft.mel_basis"):
        return 0.025 * (1 + u)
    if name.startswith("mel_stft.") or name.endswith("bias"):
        return 0.05 * u
    if name.endswith(("alpha", "beta")):
        return 0.5 * u
    return gain * math.sqrt(3) * u / math.sqrt(u.numel() / u.shape[0])


def filled(make, fill, scale: float):
    tensors = {name: fill(name, value, scale) for name, value in make().state_dict().items()}
    return build(make, tensors, dtype=torch.float64)


def first_stage():
    return filled(lambda: make_vocoder(nested_config(64, 32)), hash_filled, 0.8).vocoder


GOLDEN = {
    "G4 encoder": (
        lambda: filled(lambda: AudioEncoder(SMALL), sine_filled, 0.03)(
            sine((1, 2, 9, 16), 1000).double()
        ),
        (1, 8, 3, 4),
        [0.0582198, 0.9450770, 1.355266, 2.203788, 2.105830, 1.341385, 0.059974, 0.018706],
    ),
    "G5 decoder": (
        lambda: filled(lambda: AudioDecoder(SMALL), sine_filled, 0.03)(
            sine((1, 8, 3, 4), 1000).double()
        ),
        (1, 2, 9, 16),
        [0.0597357, 0.2036379, 0.415905, 0.459326, 0.464222, 0.463908, 0.122537, 0.113731],
    ),
    "G6 HiFi-GAN": (
        lambda: filled(
            lambda: make_vocoder(VocoderConfig.model_validate({"upsample_initial_channel": 64})),
            hash_filled,
            1.0,
        )(sine((1, 2, 3, 64), 1000).double()),
        (1, 2, 720),
        [-0.0177070, 0.0329298, 0.003747, 0.011867, 0.015756, -0.011946, -0.039863, -0.022010],
    ),
    "G7a AMP": (
        lambda: first_stage()(sine((1, 2, 3, 64), 1000).double()),
        (1, 2, 480),
        [-0.1488065, 0.2683522, 0.062712, -0.064717, 0.030201, -0.018830, -0.014538, -0.095170],
    ),
    "G7b bandwidth extension": (
        lambda: filled(lambda: make_vocoder(nested_config(64, 32)), hash_filled, 0.8)(
            sine((1, 2, 3, 64), 1000).double()
        ),
        (1, 2, 1440),
        [-0.1651121, 0.2574124, 0.074308, 0.012796, -0.106183, -0.150024, -0.095965, -0.110639],
    ),
    "G11 log-mel": (
        lambda: log_mel(0.3 * sine((1, 2, 4000), 1000), audio_config()),
        (1, 2, 26, 64),
        [-8.9103721, 3.5923501, -2.951454, -2.949316, -2.945770, -2.940771, -5.366679, -5.383645],
    ),
    "G12 resampling": (
        lambda: resample(sine((1, 2, 441), 1000), 44100, 16000),
        (1, 2, 160),
        [0.0002841, 0.7084891, 0.133638, 0.913630, -0.533666, -0.594401, -0.770406, -0.294542],
    ),
}


@pytest.mark.parametrize(("make", "shape", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_matches_golden_numbers_of_the_specification(make, shape, expected):
    with torch.inference_mode():
        actual = make().double()
    flat = actual.flatten()
    statistics = torch.stack([flat.mean(), flat.std(correction=0)])
    numbers = torch.cat([statistics, flat[:4], flat[-2:]])
    assert actual.shape == shape
    torch.testing.assert_close(numbers, torch.tensor(expected).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "latent_frames", "decoded_frames"), [(101, 26, 101), (8, 2, 5), (1, 1, 1)]
)
def test_latent_covers_the_spectrogram_from_its_start(frames, latent_frames, decoded_frames):
    latent = AudioEncoder(SMALL)(torch.zeros(1, 2, frames, 16))
    assert latent.shape == (1, 8, latent_frames, SMALL.latent_bins)
    assert AudioDecoder(SMALL)(latent).shape == (1, 2, decoded_frames, 16)


@pytest.mark.parametrize("multipliers", [(1, 2), (1, 1, 2, 2)])
def test_number_of_levels_sets_the_downsampling(multipliers):
    factor = 2 ** (len(multipliers) - 1)
    config = audio_config(ch=8 * 16 // factor, mel_bins=16, ch_mult=multipliers, num_res_blocks=1)
    latent = AudioEncoder(config)(torch.zeros(1, 2, 3 * factor + 1, 16))
    assert latent.shape == (1, 8, 4, 16 // factor)
    assert AudioDecoder(config)(latent).shape == (1, 2, 3 * factor + 1, 16)


def test_latents_do_not_depend_on_later_sound():
    encoder = AudioEncoder(SMALL)
    mel = torch.randn(1, 2, 17, 16)
    later = mel.clone()
    later[:, :, 9:] += 1
    before, after = encoder(mel), encoder(later)
    torch.testing.assert_close(after[:, :, :3], before[:, :, :3])
    assert not torch.allclose(after[:, :, 3:], before[:, :, 3:])


def test_log_mel_of_silence_is_the_floor():
    mel = log_mel(torch.zeros(1, 2, 1600), audio_config())
    torch.testing.assert_close(mel, torch.full((1, 2, 11, 64), math.log(1e-5)))


def test_too_short_a_waveform_is_refused():
    config = audio_config()
    assert log_mel(torch.zeros(2, 513), config).shape == (2, 4, 64)
    with pytest.raises(ValueError, match="512 samples is too short"):
        log_mel(torch.zeros(2, 512), config)


@pytest.mark.parametrize(("old_rate_hz", "new_rate_hz"), [(44100, 16000), (16000, 48000)])
def test_resampling_keeps_a_tone(old_rate_hz, new_rate_hz):
    def tone(rate_hz):
        return torch.sin(2 * math.pi * 440 * torch.arange(rate_hz // 10) / rate_hz)[None]

    actual = resample(tone(old_rate_hz), old_rate_hz, new_rate_hz)
    inside = slice(new_rate_hz // 100, -new_rate_hz // 100)
    torch.testing.assert_close(actual[:, inside], tone(new_rate_hz)[:, inside], rtol=0, atol=5e-3)


def test_resampling_to_the_same_rate_changes_nothing():
    waveform = torch.randn(2, 7)
    assert resample(waveform, 16000, 16000) is waveform


def test_surround_sound_keeps_its_sides_and_full_scale():
    torch.testing.assert_close(to_stereo(torch.ones(1, 8, 3)), torch.ones(1, 2, 3))
    left_only = torch.zeros(6, 3)
    left_only[0] = 1
    torch.testing.assert_close(to_stereo(left_only)[:, 0], torch.tensor([1 / 2.414, 0]))


def test_waveform_to_latent_and_back_keeps_the_duration():
    encoder, decoder = AudioEncoder(audio_config(ch=128)), AudioDecoder(audio_config(ch=128))
    vocoder = make_vocoder(VocoderConfig.model_validate({"upsample_initial_channel": 32}))
    with torch.inference_mode():
        latent = encode_waveform(encoder, torch.randn(1, 2, 4000) / 10, 16000)
        waveform = decode_audio(decoder, vocoder, latent)
    assert latent.shape == (1, 8, 7, 16)
    assert waveform.shape == (1, 2, 25 * vocoder.sample_rate_hz // 100)


def test_config_chooses_the_vocoder():
    plain = VocoderConfig.model_validate({"upsample_initial_channel": 32})
    assert type(make_vocoder(plain)) is Vocoder
    assert type(make_vocoder(nested_config(64, 32))) is BandwidthExtendedVocoder
    with pytest.raises(ValueError, match="no 'bwe' section"):
        BandwidthExtendedVocoder(plain)


def test_periodic_blocks_need_their_activation():
    config = VocoderConfig.model_validate({"resblock": "AMP1", "activation": "snake"})
    with pytest.raises(ValueError, match="expected 'snakebeta'"):
        make_vocoder(config)


def test_bandwidth_extension_computes_in_float32_from_bfloat16_weights():
    blocks = {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}

    def make() -> nn.Module:
        return make_vocoder(nested_config(64, 32, **blocks))

    stored = {name: value.bfloat16() for name, value in make().state_dict().items()}
    mel = torch.randn(1, 2, 2, 64)
    narrow, wide = build(make, stored), build(make, stored, dtype=torch.float32)
    assert narrow(mel.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(narrow(mel), wide(mel), rtol=0, atol=0)
