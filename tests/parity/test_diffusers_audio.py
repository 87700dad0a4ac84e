"""Audio VAE and vocoders against diffusers' implementation, with the same random weights."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTX2Audio
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from einops import rearrange

from rayreel.checkpoints.builder import build
from rayreel.config.model import AudioVAEConfig, VocoderConfig
from rayreel.models.audio_vae import AudioDecoder, AudioEncoder
from rayreel.models.vocoder import make_vocoder
from rayreel.runs.bench.oracles import LATENT_STATISTICS, vocoder_name

CHANNELS, LATENT_CHANNELS, MEL_BINS = 32, 8, 16


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def audio_vaes(causality_axis: str, attention: tuple[int, ...]):
    """Theirs, our encoder, our decoder."""
    shared = {
        "resolution": 64,
        "ch_mult": (1, 2, 1),
        "num_res_blocks": 1,
        "attn_resolutions": attention,
        "mel_bins": MEL_BINS,
        "causality_axis": causality_axis,
        "mid_block_add_attention": bool(attention),
    }
    theirs: Any = AutoencoderKLLTX2Audio(
        base_channels=CHANNELS, latent_channels=LATENT_CHANNELS, **shared
    )
    theirs.latents_mean.uniform_(-1, 1)
    theirs.latents_std.uniform_(0.5, 2)
    network = shared | {"ch": CHANNELS, "z_channels": LATENT_CHANNELS}
    config = AudioVAEConfig.model_validate({"model": {"params": {"ddconfig": network}}})
    state = theirs.state_dict()
    statistics = {ours: state[name] for name, ours in LATENT_STATISTICS.items()}

    def part(name: str):
        prefix = f"{name}."
        return statistics | {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }

    encoder = build(lambda: AudioEncoder(config), part("encoder"))
    return theirs, encoder, build(lambda: AudioDecoder(config), part("decoder"))


def tokens(latent):
    return rearrange(latent, "b c l f -> b l (c f)")


@pytest.mark.parametrize("attention", [(), (32, 16)], ids=["convolutions", "attention"])
@pytest.mark.parametrize("causality_axis", ["height", "width", "none"])
@torch.inference_mode()
def test_audio_vae(causality_axis, attention):
    theirs, encoder, decoder = audio_vaes(causality_axis, attention)
    mel = torch.randn(2, 2, 12, MEL_BINS)
    posterior_mean = theirs.encode(mel).latent_dist.mean
    latent = encoder(mel)
    normalized = (tokens(posterior_mean) - theirs.latents_mean) / theirs.latents_std
    torch.testing.assert_close(tokens(latent), normalized, rtol=1e-4, atol=1e-5)

    expected = theirs.decode(posterior_mean).sample
    # Without a causal axis they cut the end as if there were one.
    torch.testing.assert_close(
        decoder(latent)[:, :, : expected.shape[2]], expected, rtol=1e-4, atol=1e-5
    )


def our_vocoder(config: VocoderConfig, theirs: torch.nn.Module):
    tensors = {vocoder_name(name): tensor for name, tensor in theirs.state_dict().items()}
    return build(lambda: make_vocoder(config), tensors)


@torch.inference_mode()
def test_hifi_gan():
    theirs = LTX2Vocoder(hidden_channels=32)
    ours = our_vocoder(VocoderConfig.model_validate({"upsample_initial_channel": 32}), theirs)
    mel = torch.randn(2, 2, 5, 64)
    torch.testing.assert_close(ours(mel), theirs(mel), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_bandwidth_extension():
    theirs = LTX2VocoderWithBWE(hidden_channels=64, bwe_hidden_channels=32)
    theirs.mel_stft.mel_basis.uniform_(0, 0.05)
    theirs.mel_stft.stft_fn.forward_basis.uniform_(-0.05, 0.05)
    amp = {
        "resblock": "AMP1",
        "activation": "snakebeta",
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
    }
    first = amp | {
        "upsample_initial_channel": 64,
        "upsample_rates": [5, 2, 2, 2, 2, 2],
        "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
    }
    second = amp | {
        "upsample_initial_channel": 32,
        "upsample_kernel_sizes": [12, 11, 4, 4, 4],
        "output_sampling_rate": 48000,
    }
    ours = our_vocoder(VocoderConfig.model_validate({"vocoder": first, "bwe": second}), theirs)
    mel = torch.randn(1, 2, 3, 64)
    # They do not clamp the first waveform; at this amplitude nothing is.
    assert theirs.vocoder(mel).abs().max() < 1
    torch.testing.assert_close(ours(mel), theirs(mel), rtol=1e-4, atol=1e-5)
