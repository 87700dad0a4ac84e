"""Sound in tiles: the same as of the whole."""

import logging
import math

import pytest
import torch
from torch import Tensor

from rayreel.config.model import AudioVAEConfig, VocoderConfig
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder, encode_waveform, log_mel, tiled
from rayreel.models.audio_vae.tiled import (
    TILE_FRAMES,
    decoder_reach,
    encoder_reach,
    tiled_audio_encode,
)
from rayreel.models.vocoder import decode, decode_audio, make_vocoder, tiled_audio_decode
from rayreel.models.vocoder.tiled import vocoder_timing
from tests.official import OFFICIAL

AUDIO = OFFICIAL["2.3"]["audio_vae"]
WIDTHS = {"2.0": {"upsample_initial_channel": 32}, "2.3": {"upsample_initial_channel": 64}}


def audio_config(**network) -> AudioVAEConfig:
    """The published network, narrow."""
    bins = 64 // 2 ** (len(network.get("ch_mult", "two")) - 1)
    net = AUDIO["model"]["params"]["ddconfig"] | {"ch": bins, "z_channels": 1} | network
    return AudioVAEConfig.model_validate(AUDIO | {"model": {"params": {"ddconfig": net}}})


def vocoder_of(generation: str, **bwe):
    config = OFFICIAL[generation]["vocoder"]
    if generation == "2.0":
        return network(lambda: make_vocoder(VocoderConfig.model_validate(config | WIDTHS["2.0"])))
    narrow = {name: config[name] | WIDTHS["2.3"] for name in ("vocoder", "bwe")}
    narrow["bwe"] |= bwe
    made = network(lambda: make_vocoder(VocoderConfig.model_validate(narrow)))
    for name, basis in made.mel_stft.named_buffers():
        basis.normal_().mul_(0.1)
        if name == "mel_basis":
            basis.abs_()
    return made


@torch.no_grad()
def network(make):
    torch.manual_seed(0)
    return make().double().requires_grad_(False).eval()


def randn(*shape) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_same(tiles: list[Tensor], whole: Tensor, dim: int, atol: float = 1e-7):
    assert len(tiles) > 1
    torch.testing.assert_close(torch.cat(tiles, dim=dim), whole, rtol=0, atol=atol)
    assert whole.std() > 100 * atol


@pytest.mark.parametrize(("generation", "tile"), [("2.0", 7), ("2.0", 52), ("2.3", 20)])
def test_tiles_sound_like_the_whole(generation, tile):
    decoder, vocoder = network(lambda: AudioDecoder(audio_config())), vocoder_of(generation)
    latent = randn(1, 1, 53, 16)
    tiles = list(tiled_audio_decode(decoder, vocoder, latent, tile))
    assert_same(tiles, decode_audio(decoder, vocoder, latent), dim=-1)
    # 100 mel frames are a second.
    samples = 4 * tile * vocoder.sample_rate_hz // 100
    assert [part.shape[-1] for part in tiles[:-1]] == [samples] * (len(tiles) - 1)


def test_tiles_sound_like_the_whole_in_float32():
    decoder = network(lambda: AudioDecoder(audio_config())).float()
    vocoder = vocoder_of("2.3").float()
    latent = randn(1, 1, 54, 16).float()
    tiles = list(tiled_audio_decode(decoder, vocoder, latent, 27))
    assert_same(tiles, decode_audio(decoder, vocoder, latent), dim=-1, atol=1e-5)


@pytest.mark.parametrize("generation", ["2.0", "2.3"])
def test_reach_of_the_vocoder_is_exact(generation):
    """What depends on a frame that is not a number is none either."""
    vocoder = vocoder_of(generation)
    timing = vocoder_timing(vocoder)
    mel = randn(1, 2, 161, 64)
    mel[:, :, 80] = torch.nan
    (seen,) = vocoder(mel)[0].isnan().all(dim=0).nonzero(as_tuple=True)
    before = 80 - int(seen[0]) / timing.samples
    after = (int(seen[-1]) + 1) / timing.samples - 81
    assert (math.ceil(after), math.ceil(before)) == timing.reach
    assert len(seen) == seen[-1] - seen[0] + 1


def test_tiles_start_where_the_second_spectrogram_has_a_frame():
    """160 samples per mel frame are two and a half hops."""
    decoder = network(lambda: AudioDecoder(audio_config()))
    vocoder = vocoder_of(
        "2.3", hop_length=64, upsample_rates=[6, 4, 2, 2, 2], upsample_kernel_sizes=[12, 8, 4, 4, 4]
    )
    latent = randn(1, 1, 54, 16)
    tiles = list(tiled_audio_decode(decoder, vocoder, latent, 25))
    assert_same(tiles, decode_audio(decoder, vocoder, latent), dim=-1)


@pytest.mark.parametrize("axis", ["height", "width", "none"])
@pytest.mark.parametrize("levels", [[1, 2, 4], [1, 2]])
def test_reach_of_the_decoder_is_exact(axis, levels):
    config = audio_config(causality_axis=axis, ch_mult=levels, num_res_blocks=1)
    decoder, latent = (
        network(lambda: AudioDecoder(config)),
        randn(1, 1, 80, 64 // config.downsample),
    )
    whole = decoder(latent)
    part = decoder(latent[:, :, 20:60])
    length = config.downsample * 40 - (config.downsample - 1 if axis == "height" else 0)
    start = 20 * config.downsample
    assert changed(part[:, :, :length], whole[:, :, start : start + length]) == decoder_reach(
        config
    )


def changed(part: Tensor, whole: Tensor) -> tuple[int, int]:
    """Frames at the start and at the end that differ."""
    frames = whole.shape[2]
    differs = (part - whole[:, :, : part.shape[2]]).abs().amax((0, 1, 3)) > 1e-14
    same = (~differs).nonzero()
    return int(same[0]), frames - 1 - int(same[-1])


@pytest.mark.parametrize("axis", ["height", "width", "none"])
@pytest.mark.parametrize("levels", [[1, 2, 4], [1, 2]])
def test_reach_of_the_encoder_is_exact(axis, levels):
    config = audio_config(causality_axis=axis, ch_mult=levels, num_res_blocks=1)
    encoder, factor = network(lambda: AudioEncoder(config)), config.downsample
    mel = randn(1, 2, 120 * factor, 64)
    part = encoder(mel[:, :, 30 * factor : 90 * factor])
    assert changed(part, encoder(mel)[:, :, 30:90]) == encoder_reach(config)


@pytest.mark.parametrize("axis", ["height", "width", "none"])
@pytest.mark.parametrize("frames", [317, 320])
def test_tiles_encode_like_the_whole(axis, frames):
    encoder = network(lambda: AudioEncoder(audio_config(causality_axis=axis)))
    mel = randn(1, 2, frames, 64)
    for tile in (16, 33):
        assert_same(list(tiled_audio_encode(encoder, mel, tile)), encoder(mel), dim=2, atol=1e-12)


def test_sound_of_20_seconds_is_not_cut():
    """No clip that the published transformers were trained to make is longer."""
    assert audio_config().latents_per_second * 20 == TILE_FRAMES


def test_longer_sound_is_decoded_and_encoded_in_tiles(monkeypatch):
    for module in (decode, tiled):
        monkeypatch.setattr(module, "TILE_FRAMES", 40)
    config = audio_config(num_res_blocks=1)
    decoder, encoder = network(lambda: AudioDecoder(config)), network(lambda: AudioEncoder(config))
    vocoder = vocoder_of("2.0")
    latent, waveform = randn(1, 1, 50, 16), randn(1, 2, 32000) / 10
    sound, encoded = vocoder(decoder(latent)).float(), encoder(log_mel(waveform, config))
    lengths = []
    for net in (decoder, encoder):
        net.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[2]))
    torch.testing.assert_close(decode_audio(decoder, vocoder, latent), sound, rtol=0, atol=1e-6)
    torch.testing.assert_close(encode_waveform(encoder, waveform, 16000), encoded)
    assert len(lengths) == 4


def test_attention_needs_the_whole(caplog):
    config = audio_config(mid_block_add_attention=True)
    decoder, vocoder = network(lambda: AudioDecoder(config)), vocoder_of("2.0")
    latent = randn(1, 1, 40, 16)
    with caplog.at_level(logging.WARNING):
        tiles = list(tiled_audio_decode(decoder, vocoder, latent, 16))
    assert "has attention" in caplog.text
    assert_same(tiles, decode_audio(decoder, vocoder, latent), dim=-1)
