"""Sound in tiles, with the weights of the golden vectors."""

import pytest
import torch

from rayreel.models.audio_vae import AudioDecoder, AudioEncoder, tiled_audio_encode
from rayreel.models.vocoder import decode_audio, tiled_audio_decode
from tests.parity.test_audio import AUDIO, audio_config, audio_vae, vocoder
from tests.parity.vectors import cases

FOLDERS = sorted({case.values[0].folder for case in cases(AUDIO)})


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("tile", [30, 41])
def test_tiles_decode_to_the_sound_of_the_whole(folder, tile):
    decoder, network = audio_vae(folder, AudioDecoder), vocoder(folder)
    config = audio_config(folder)
    latent = randn(1, config.network.z_channels, 72, config.latent_bins)
    whole = decode_audio(decoder, network, latent)
    tiles = list(tiled_audio_decode(decoder, network, latent, tile))
    assert len(tiles) > 1
    torch.testing.assert_close(torch.cat(tiles, dim=-1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("frames", [241, 300])
def test_tiles_encode_to_the_latent_of_the_whole(folder, frames):
    encoder = audio_vae(folder, AudioEncoder)
    mel = randn(1, 2, frames, encoder.config.mel_bins)
    tiles = list(tiled_audio_encode(encoder, mel, 25))
    assert len(tiles) > 1
    torch.testing.assert_close(torch.cat(tiles, dim=2), encoder(mel), rtol=0, atol=1e-5)
