"""Video VAE against diffusers', with random weights."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video

from rayreel.checkpoints.builder import build
from rayreel.config.model import VideoVAEConfig
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.video_vae.decoder import NOISE_SCALE, TIMESTEP
from rayreel.runs.bench.oracles import LATENT_STATISTICS, video_vae_name

# Generations 2.0 and 2.3 in small, as ours and as theirs. Decoder blocks are listed from pixels to
# latent, but for their ``upsample_type``, which runs from latent to pixels.
GENERATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "2.0": (
        {
            "encoder_blocks": [
                ["res_x", 1],
                ["compress_space_res", {"multiplier": 2}],
                ["res_x", 2],
                ["compress_time_res", {"multiplier": 2}],
                ["res_x", 1],
                ["compress_all_res", {"multiplier": 1}],
                ["res_x", 1],
            ],
            "decoder_blocks": [
                ["res_x", 1],
                ["compress_all", {"multiplier": 2, "residual": True}],
                ["res_x", 2],
                ["compress_all", {"multiplier": 2, "residual": True}],
                ["res_x", 1],
            ],
        },
        {
            "block_out_channels": (16, 32, 32),
            "down_block_types": ("LTX2VideoDownBlock3D",) * 3,
            "layers_per_block": (1, 2, 1, 1),
            "spatio_temporal_scaling": (True, True, True),
            "downsample_type": ("spatial", "temporal", "spatiotemporal"),
            "decoder_block_out_channels": (8, 16),
            "decoder_layers_per_block": (1, 2, 1),
            "decoder_spatio_temporal_scaling": (True, True),
            "decoder_inject_noise": (False, False, False),
            "upsample_type": ("spatiotemporal", "spatiotemporal"),
            "upsample_residual": (True, True),
            "upsample_factor": (2, 2),
        },
    ),
    "2.3": (
        {
            "encoder_blocks": [["res_x", 1], ["compress_all_res", {"multiplier": 2}], ["res_x", 1]],
            "decoder_blocks": [
                ["res_x", 1],
                ["compress_space", {"multiplier": 2}],
                ["res_x", 1],
                ["compress_time", {"multiplier": 2}],
                ["res_x", 1],
                ["compress_all", {"multiplier": 1}],
                ["res_x", 2],
            ],
            "spatial_padding_mode": "zeros",
        },
        {
            "block_out_channels": (16,),
            "down_block_types": ("LTX2VideoDownBlock3D",),
            "layers_per_block": (1, 1),
            "spatio_temporal_scaling": (True,),
            "downsample_type": ("spatiotemporal",),
            "decoder_block_out_channels": (8, 16, 16),
            "decoder_layers_per_block": (1, 1, 1, 2),
            "decoder_spatio_temporal_scaling": (True, True, True),
            "decoder_inject_noise": (False, False, False, False),
            "upsample_type": ("spatiotemporal", "temporal", "spatial"),
            "upsample_residual": (False, False, False),
            "upsample_factor": (2, 2, 1),
            "decoder_spatial_padding_mode": "zeros",
        },
    ),
}


def make_pair(generation, *, causal=False, conditioned=False, noisy=False):
    """Their model and our encoder and decoder with the same random weights."""
    ours, theirs = GENERATIONS[generation]
    config = VideoVAEConfig.model_validate(
        {
            "latent_channels": 8,
            "decoder_base_channels": 4,
            "causal_decoder": causal,
            "timestep_conditioning": conditioned,
            **ours,
        }
    )
    blocks = [b.model_copy(update={"inject_noise": noisy}) for b in config.decoder_blocks]
    config = config.model_copy(update={"decoder_blocks": tuple(blocks)})
    torch.manual_seed(0)
    noise = (noisy,) * len(theirs["decoder_inject_noise"])
    flags = {"timestep_conditioning": conditioned, "decoder_causal": causal}
    settings = theirs | flags | {"decoder_inject_noise": noise, "latent_channels": 8}
    reference = AutoencoderKLLTX2Video(**settings).eval().requires_grad_(False)
    state = reference.state_dict()
    for name, tensor in state.items():
        if "per_channel_scale" in name or name == "latents_mean":
            tensor.normal_()
    state["latents_std"].uniform_(0.5, 1.5)
    return reference, *(part(kind, config, state) for kind in (VideoEncoder, VideoDecoder))


def part(kind, config, state):
    prefix = "encoder." if kind is VideoEncoder else "decoder."
    last = len(config.encoder_blocks) - 1
    tensors = {video_vae_name(n, last): t for n, t in state.items() if n.startswith(prefix)}
    tensors |= {ours: state[theirs] for theirs, ours in LATENT_STATISTICS.items()}
    return build(lambda: kind(config), tensors)


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def un_normalize(reference, latent):
    mean, std = (x.view(1, -1, 1, 1, 1) for x in (reference.latents_mean, reference.latents_std))
    return latent * std + mean


@pytest.mark.parametrize("generation", GENERATIONS)
def test_encoder(generation):
    reference, encoder, _ = make_pair(generation)
    video = normal(2, 3, 9, 32, 48)
    expected = reference.encode(video).latent_dist.mean
    actual = un_normalize(reference, encoder(video))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_decoder(generation, causal):
    reference, _, decoder = make_pair(generation, causal=causal)
    latent = normal(2, 8, 3, 2, 3)
    expected = reference.decoder(un_normalize(reference, latent))
    torch.testing.assert_close(decoder(latent), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("timestep", [None, torch.tensor([0.02, 0.3])])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_decoder_with_timestep(generation, timestep):
    reference, _, decoder = make_pair(generation, conditioned=True)
    latent, noise = normal(2, 8, 2, 2, 3), torch.randn(2, 8, 2, 2, 3)
    actual = decoder(latent, timestep=timestep, noise=lambda _: noise)
    mixed = torch.lerp(latent, noise, NOISE_SCALE)
    time = torch.full((2,), TIMESTEP) if timestep is None else timestep
    expected = reference.decoder(un_normalize(reference, mixed), time)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_decoder_with_injected_noise(generation):
    """Theirs draws from the global generator: with one seed both draw the same, if the order is."""
    reference, _, decoder = make_pair(generation, noisy=True)
    latent = normal(2, 8, 2, 2, 3)
    torch.manual_seed(3)
    expected = reference.decoder(un_normalize(reference, latent))
    torch.manual_seed(3)
    actual = decoder(latent, noise=torch.randn)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
