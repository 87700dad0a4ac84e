"""Video VAE and latent upsampler: golden numbers of the specification, and behaviour."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F

from rayreel.config.model import UpsamplerConfig, VideoVAEConfig
from rayreel.models.tiling import DimensionSizeConfig, TileSizeConfig
from rayreel.models.upsampler import LatentUpsampler
from rayreel.models.video_vae import (
    VideoDecoder,
    VideoEncoder,
    gaussian,
    tiled_decode,
    tiled_encode,
    to_rgb,
)
from rayreel.models.video_vae.ops import (
    LayerStyle,
    PixelNorm,
    VideoConv3d,
    activate_and_convolve,
    patchify,
    unpatchify,
)


def phi(shape, k):
    """Deterministic values of the specification: a sine of the flat index."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7 * n + 1.3 * k + 0.5).float().reshape(shape)


def sine_fill(module, scale):
    for name, tensor in module.state_dict().items():
        parent, _, leaf = name.rpartition(".")
        wave = phi(tensor.shape, sum(map(ord, name)) % 101)
        if leaf == "std-of-means":
            tensor.copy_(1 + 0.2 * wave)
        elif leaf == "weight" and "norm" in parent.rpartition(".")[2]:
            tensor.copy_(1 + 0.1 * wave)
        elif leaf not in {"kernel", "timestep_scale_multiplier"}:
            tensor.copy_(scale * wave)
    return module.requires_grad_(False).eval()


def vae(**changes):
    return VideoVAEConfig.model_validate({"timestep_conditioning": False, **changes})


def block(name, multiplier=None, **params):
    return [name, {"multiplier": multiplier, **params}]


RESIDUAL = block("compress_all", 2, residual=True)
ENCODER = vae(
    encoder_blocks=[
        ["res_x", 1],
        block("compress_space_res", 2),
        block("compress_time_res", 2),
        block("compress_all_res", 1),
    ]
)
G2 = vae(decoder_base_channels=8, decoder_blocks=[["res_x", 1], RESIDUAL] * 2)
G3 = vae(
    decoder_base_channels=8,
    spatial_padding_mode="zeros",
    decoder_blocks=[
        ["res_x", 1],
        block("compress_space", 2),
        block("compress_time", 2),
        ["res_x", 1],
        block("compress_all", 1),
    ],
)
G14 = vae(
    decoder_base_channels=8,
    timestep_conditioning=True,
    decoder_blocks=[["res_x", 1], RESIDUAL, ["res_x", 1]],
)
TILES = DimensionSizeConfig(tile_size=64, overlap=32)
DECODE_TILES = TileSizeConfig(
    frames=DimensionSizeConfig(tile_size=12, overlap=4), height=TILES, width=TILES
)
ENCODE_TILES = TileSizeConfig(
    frames=DimensionSizeConfig(tile_size=20, overlap=16),
    height=DimensionSizeConfig(),
    width=DimensionSizeConfig(tile_size=96, overlap=64),
)


def upsampler(**changes):
    small = {"in_channels": 8, "mid_channels": 32, "num_blocks_per_stage": 1}
    return LatentUpsampler(UpsamplerConfig.model_validate({**small, **changes}))


def noise_of_the_specification(shape):
    return phi(shape, 2000)


def tiled(decoder, latent):
    chunks = list(tiled_decode(decoder, latent, DECODE_TILES))
    assert [chunk.shape[2] for chunk in chunks] == [4, 13]
    return torch.cat(chunks, dim=2)


# Network, scale of its weights, input shape, call; then mean, standard deviation, first four and
# last two values of the result.
GOLDEN = {
    "G1": (
        lambda: VideoEncoder(ENCODER), 0.02, (1, 3, 9, 32, 32), None,
        (-0.0116648, 0.5503290, 0.515025, -0.038898, -0.850444, -0.726385, -0.833288, -0.860195),
    ),
    "G2": (
        lambda: VideoDecoder(G2), 0.02, (1, 128, 2, 3, 4), None,
        (0.0003981, 0.2841027, 0.233804, 0.037854, -0.265798, 0.019518, -0.037804, 0.322704),
    ),
    "G3": (
        lambda: VideoDecoder(G3), 0.02, (1, 128, 3, 3, 4), None,
        (-0.0009083, 0.4562622, -0.645404, 0.331991, 0.587879, -0.348720, 0.436221, 0.359563),
    ),
    "G8a": (
        upsampler, 0.05, (1, 8, 3, 4, 6), None,
        (0.0040248, 1.9901218, 1.036247, 2.632294, 3.677471, 4.494292, -1.662468, -1.044261),
    ),
    "G8b": (
        lambda: upsampler(rational_resampler=True, spatial_scale=1.5), 0.05, (1, 8, 3, 4, 6), None,
        (-0.0021190, 1.4726207, 0.113962, 0.725897, 1.437217, 2.125312, -0.390662, -0.347889),
    ),
    "G8c": (
        lambda: upsampler(spatial_upsample=False, temporal_upsample=True),
        0.05, (1, 8, 3, 4, 6), None,
        (0.0363937, 4.6509358, 3.399240, 8.302992, 9.576090, 6.230104, 0.405025, -0.772583),
    ),
    "G13": (
        lambda: VideoDecoder(G3), 0.02, (1, 128, 5, 6, 8), tiled,
        (-0.0003935, 0.4153665, -0.520710, 0.323384, 0.463932, -0.329354, 0.173311, 0.284848),
    ),
    "G14": (
        lambda: VideoDecoder(G14), 0.02, (1, 128, 2, 3, 4),
        lambda decoder, latent: decoder(latent, noise=noise_of_the_specification),
        (-0.0017162, 0.3674636, -0.059238, 0.050968, 0.026106, -0.018934, 0.085174, 0.102538),
    ),
    "G15": (
        lambda: VideoEncoder(ENCODER), 0.02, (1, 3, 25, 32, 160),
        lambda encoder, video: tiled_encode(encoder, video, ENCODE_TILES),
        (-0.0162812, 0.7214110, 0.521104, 0.361891, 0.398454, 0.376449, -1.376401, -0.969506),
    ),
}  # fmt: skip


# oneDNN adds up longer runs of products than PyTorch's own kernels; and G1 is large.
TOLERANCES = {"G1": 3e-5}
ONEDNN_TOLERANCES = TOLERANCES | {"G15": 1.5e-5}


def check_golden_numbers(name, dtype, tolerances):
    make, scale, shape, call, expected = GOLDEN[name]
    network = sine_fill(make(), scale).to(dtype)
    x = phi(shape, 1000).to(dtype)
    y = call(network, x) if call else network(x)
    flat = y.flatten()
    found = torch.stack([y.mean(), y.std(correction=0), *flat[:4], *flat[-2:]])
    golden = torch.tensor(expected).to(dtype)
    torch.testing.assert_close(found, golden, rtol=0, atol=tolerances.get(name, 1e-5))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers_in_float64(name):
    check_golden_numbers(name, torch.float64, {})


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    check_golden_numbers(name, torch.float32, TOLERANCES)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers_by_onednn(name):
    check_golden_numbers(name, torch.float32, ONEDNN_TOLERANCES)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_onednn_can_be_switched_off(monkeypatch):
    conv = VideoConv3d(48, 16, LayerStyle(causal=True, padding="zeros", norm="pixel_norm"))
    x = randn(1, 48, 5, 8, 8)
    assert "aten::mkldnn_convolution" in calls(conv, x)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert "aten::mkldnn_convolution" not in calls(conv, x)


def calls(network, x):
    """Names of the operations that PyTorch runs for an input."""
    with torch.profiler.profile() as profile:
        network(x)
    return {event.key for event in profile.key_averages()}


TINY = vae(
    latent_channels=4,
    decoder_base_channels=4,
    encoder_blocks=[["res_x", 1], block("compress_all_res", 2), block("compress_time_res", 1)],
    decoder_blocks=[["res_x", 1], block("compress_all", 2), block("compress_time", 1)],
)


def tiny(kind, **changes):
    torch.manual_seed(0)
    return kind(TINY.model_copy(update=changes)).requires_grad_(False)


def tiny_block(kind, name, **params):
    """A network that consists of one block beside its first and last layer."""
    blocks = {f"{kind}_blocks": [block(name, **params)]}
    shape = {"latent_channels": 32, "decoder_base_channels": 32, "norm_layer": "group_norm"}
    torch.manual_seed(0)
    make = VideoEncoder if kind == "encoder" else VideoDecoder
    return make(vae(**shape, **blocks)).requires_grad_(False)


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "shape"), [(VideoEncoder, (2, 3, 5, 16, 24)), (VideoDecoder, (2, 4, 2, 2, 3))]
)
def test_a_batch_equals_its_singles(kind, shape):
    network, x = tiny(kind), randn(*shape)
    singles = torch.cat([network(x[:1]), network(x[1:])])
    torch.testing.assert_close(network(x), singles)


@pytest.mark.parametrize(
    ("kind", "shape"), [(VideoEncoder, (1, 3, 5, 16, 24)), (VideoDecoder, (1, 4, 2, 2, 3))]
)
def test_networks_compute_in_the_dtype_of_their_weights(kind, shape):
    network, x = tiny(kind), randn(*shape)
    expected = network(x)
    rounded = network.bfloat16()(x)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, expected)
    torch.testing.assert_close(rounded, expected, rtol=0.1, atol=0.1)


def test_conditioned_decoder_runs_in_bfloat16():
    decoder = tiny(VideoDecoder, timestep_conditioning=True).bfloat16()
    video = decoder(randn(1, 4, 2, 2, 2), noise=gaussian(torch.Generator().manual_seed(0)))
    assert video.shape == (1, 3, 5, 16, 16)
    assert video.isfinite().all()


@pytest.mark.parametrize("inject_noise", [False, True])
def test_noise_of_a_generator_decides_the_video(inject_noise):
    blocks = vae(decoder_blocks=[block("res_x", inject_noise=inject_noise)]).decoder_blocks
    changes = {"decoder_blocks": blocks, "timestep_conditioning": not inject_noise}
    decoder, latent = tiny(VideoDecoder, **changes), randn(1, 4, 1, 2, 2)
    if inject_noise:
        decoder.up_blocks[0].res_blocks[0].per_channel_scale1 += 1
    one, again, other = (
        decoder(latent, noise=gaussian(torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_conditioned_decoder_needs_a_noise_source():
    with pytest.raises(ValueError, match="pass noise"):
        tiny(VideoDecoder, timestep_conditioning=True)(randn(1, 4, 1, 2, 2))


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("extent", [4, 40])
def test_convolution_repeats_the_border_frames(padding, causal, extent):
    torch.manual_seed(0)
    conv = VideoConv3d(8, 4, LayerStyle(causal, padding, "pixel_norm")).requires_grad_(False)
    x = randn(2, 8, 3, extent, extent)
    frames = [0, 0, 0, 1, 2] if causal else [0, 0, 1, 2, 2]
    mode = "constant" if padding == "zeros" else "reflect"
    padded = F.pad(x[:, :, frames], (1, 1, 1, 1, 0, 0), mode=mode)
    expected = F.conv3d(padded, conv.conv.weight, conv.conv.bias)
    torch.testing.assert_close(conv(x), expected)
    norm = PixelNorm()
    activated = F.silu(x / x.square().mean(dim=1, keepdim=True).sqrt())
    torch.testing.assert_close(activate_and_convolve(x, norm, conv), conv(activated))


def test_encoder_announces_the_frames_that_it_cuts_off(caplog):
    encoder, video = tiny(VideoEncoder), randn(1, 3, 8, 16, 16)
    with caplog.at_level(logging.WARNING):
        latent = encoder(video)
    assert "8 frames do not fit the video VAE (4k + 1): the last 3 are cut off" in caplog.text
    torch.testing.assert_close(latent, encoder(video[:, :, :5]))


def test_encoder_is_causal():
    encoder, video = tiny(VideoEncoder), randn(1, 3, 9, 16, 16)
    torch.testing.assert_close(encoder(video)[:, :, :2], encoder(video[:, :, :5]))


@pytest.mark.parametrize("causal", [False, True])
def test_causal_decoder_decodes_the_start_without_the_rest(causal):
    decoder, latent = tiny(VideoDecoder, causal_decoder=causal), randn(1, 4, 3, 2, 2)
    start = decoder(latent[:, :, :2])
    assert torch.allclose(decoder(latent)[:, :, :5], start, atol=1e-5) == causal


@pytest.mark.parametrize("size", [(20, 16), (16, 20)])
def test_encoder_rejects_sizes_off_the_grid(size):
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny(VideoEncoder)(randn(1, 3, 1, *size))


def test_reflecting_decoder_rejects_a_latent_of_one_row():
    with pytest.raises(ValueError, match="at least 2x2"):
        tiny(VideoDecoder)(randn(1, 4, 1, 1, 4))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("res_x", (1, 32, 5, 4, 6)),
        ("res_x_y", (1, 32, 5, 4, 6)),
        ("compress_time", (1, 32, 3, 4, 6)),
        ("compress_space", (1, 32, 5, 2, 3)),
        ("compress_all", (1, 32, 3, 2, 3)),
        ("compress_all_x_y", (1, 32, 3, 2, 3)),
        ("attn", (1, 32, 5, 4, 6)),
    ],
)
def test_encoder_blocks_reduce_what_they_are_named_for(name, shape):
    latent = tiny_block("encoder", name)(randn(1, 3, 5, 16, 24))
    assert latent.shape == shape
    assert latent.std() > 0


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("res_x", (1, 3, 3, 8, 12)),
        ("res_x_y", (1, 3, 3, 8, 12)),
        ("compress_time", (1, 3, 5, 8, 12)),
        ("compress_space", (1, 3, 3, 16, 24)),
        ("compress_all", (1, 3, 5, 16, 24)),
        ("attn", (1, 3, 3, 8, 12)),
    ],
)
def test_decoder_blocks_enlarge_what_they_are_named_for(name, shape):
    video = tiny_block("decoder", name)(randn(1, 32, 3, 2, 3))
    assert video.shape == shape
    assert video.std() > 0


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_unknown_block_is_named(kind):
    with pytest.raises(ValueError, match="'attn_res_x'"):
        tiny_block(kind, "attn_res_x")


def test_patches_hold_the_row_fastest():
    pixels = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    order = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    assert patchify(pixels, 4).flatten().tolist() == order
    assert torch.equal(unpatchify(patchify(pixels, 4), 4), pixels)


def test_rgb_is_clipped_and_truncated():
    levels = [-2.0, -1.0, 2 * 1.99 / 255 - 1, 1.0, 3.0]
    video = torch.tensor(levels).expand(2, 3, 1, 1, 5)
    rgb = to_rgb(video)
    assert rgb.shape == (2, 1, 1, 5, 3)
    assert rgb.dtype == torch.uint8
    assert rgb[1, 0, 0, :, 2].tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    "changes",
    [
        {"rational_resampler": True, "spatial_scale": 3.0},
        {"spatial_scale": 1.5},
        {"spatial_upsample": False},
    ],
)
def test_upsampler_rejects_what_it_cannot_do(changes):
    with pytest.raises(ValueError, match="spatial_"):
        upsampler(**changes)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (2, 8, 3, 8, 12)),
        ({"rational_resampler": True, "spatial_scale": 0.75}, (2, 8, 3, 3, 5)),
        ({"rational_resampler": True, "spatial_scale": 4.0}, (2, 8, 3, 16, 24)),
        ({"temporal_upsample": True}, (2, 8, 5, 8, 12)),
    ],
)
def test_upsampler_scales_space_and_time(changes, shape):
    network, latent = upsampler(**changes), randn(2, 8, 3, 4, 6)
    torch.testing.assert_close(network(latent), torch.cat([network(z[None]) for z in latent]))
    assert network.bfloat16()(latent).shape == shape
