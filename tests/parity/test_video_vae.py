"""Video VAE against the published implementation's results."""

import re

import pytest
import torch

from rayreel.checkpoints.builder import build
from rayreel.config.model import VideoVAEConfig
from rayreel.models.statistics import PerChannelStatistics
from rayreel.models.video_vae import (
    VideoDecoder,
    VideoEncoder,
    tiled_decode,
    tiled_encode,
    to_rgb,
)
from tests.parity.test_tiling import parse_tiling
from tests.parity.vectors import cases, component, weights

MONOLITH = "{}/model.safetensors"
CONDITIONED = "{}/vae_timestep_conditioned_model.safetensors"


def weights_beside(case):
    """Weights of a file of vectors that has a model of its own."""
    return case.file.replace(".safetensors", "_model.safetensors")


def statistics_of(file):
    """The two statistics that are read; files may hold more."""
    stored = component(file, "vae.per_channel_statistics.")
    return {name: stored[name] for name in ("mean-of-means", "std-of-means")}


def load(kind, part, file, *, dtype=torch.float32, **changes):
    config = weights(file).section("vae", VideoVAEConfig).model_copy(update=changes)
    statistics = {f"per_channel_statistics.{k}": v for k, v in statistics_of(file).items()}
    tensors = component(file, f"vae.{part}.") | statistics
    return build(lambda: kind(config), tensors, dtype=dtype, source=file)


def load_encoder(file, **options):
    return load(VideoEncoder, "encoder", file, **options)


def load_decoder(file, **options):
    return load(VideoDecoder, "decoder", file, **options)


def pixels_of(case):
    file, _, name = case.options["input"].rpartition(":")
    levels = weights(file).tensor(name)
    video = (levels.permute(3, 0, 1, 2).double() / 127.5 - 1)[None]
    return torch.cat([video, video.flip(-1)]) if case.out["latent"].shape[0] == 2 else video


# Large videos are stored as views; masks are compared in test_tiling.py.
VIEWS = {
    "video": lambda video: video,
    "video_sub": lambda video: video[..., ::2, ::2],
    "video_sub4": lambda video: video[..., ::4, ::4],
    "frame_mean": lambda video: video.mean(dim=(1, 3, 4)),
}


def check_video(case, video):
    for name, expected in case.out.items():
        if name == "full_frames":
            numbers = re.findall(r"\d+", case.options["note"].rpartition("full_frames")[2])
            case.assert_close(video[:, :, [int(number) for number in numbers]], expected)
        elif name == "rgb_fhwc_sub":
            check_rgb(to_rgb(video)[0, :, ::4, ::4], expected)
        elif not name.startswith("tile"):
            case.assert_close(VIEWS[name](video), expected)


def check_rgb(levels, expected):
    """The reference is not yet quantised: truncation takes away up to one level."""
    assert levels.dtype == torch.uint8
    lost = 255 * expected - levels
    assert lost.min() > -0.1
    assert lost.max() < 1.1


@pytest.mark.parametrize("case", cases("v*/vae_encode.safetensors"))
def test_encode(case):
    if case.name == "statistics":
        statistics = build(
            lambda: PerChannelStatistics(case.inputs["x"].shape[1]),
            statistics_of(MONOLITH.format(case.folder)),
        )
        case.assert_close(statistics.normalize(case.inputs["x"]), "normalized")
        case.assert_close(statistics.un_normalize(case.inputs["x"]), "un_normalized")
        return
    encoder, video = load_encoder(MONOLITH.format(case.folder)), pixels_of(case).float()
    if tiling := case.options.get("config"):
        latent = tiled_encode(encoder, video, parse_tiling(tiling))
    else:
        latent = encoder(video)
    case.assert_close(latent, "latent")


@pytest.mark.parametrize(
    "case", [c for c in cases("v*/vae_encode.safetensors") if c.values[0].tensors("out64")]
)
def test_encode_in_float64(case):
    encoder = load_encoder(MONOLITH.format(case.folder), dtype=torch.float64)
    expected = case.tensors("out64")["latent"]
    case.assert_close(encoder(pixels_of(case)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", cases("v*/vae_decode.safetensors"))
def test_decode(case):
    decoder, latent = load_decoder(MONOLITH.format(case.folder)), case.inputs["latent"]
    if tiling := case.options.get("config"):
        chunks = list(tiled_decode(decoder, latent, parse_tiling(tiling)))
        assert [chunk.shape[2] for chunk in chunks] == case.options["chunk_frames"]
        check_video(case, torch.cat(chunks, dim=2))
    else:
        check_video(case, decoder(latent))


@pytest.mark.parametrize(
    "case", [c for c in cases("v*/vae_decode.safetensors") if c.values[0].tensors("out64")]
)
def test_decode_in_float64(case):
    decoder = load_decoder(MONOLITH.format(case.folder), dtype=torch.float64)
    expected = case.tensors("out64")["video_sample0"]
    video = decoder(case.inputs["latent"][:1].double())
    case.assert_close(video, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", cases("v*/vae_decode_timestep_conditioned.safetensors"))
def test_decode_with_timestep_and_given_noise(case):
    inputs = case.inputs
    draws = iter([inputs[f"noise{i}"] for i in range(sum(n.startswith("noise") for n in inputs))])

    def given(shape):
        noise = next(draws)
        assert noise.shape == shape
        return noise

    decoder = load_decoder(CONDITIONED.format(case.folder), causal_decoder=case.options["causal"])
    video = decoder(inputs["latent"], timestep=inputs.get("timestep"), noise=given)
    check_video(case, video)
    assert next(draws, None) is None


@pytest.mark.parametrize("case", cases("v*/vae_attn_16x16x4.safetensors", "encode"))
def test_encode_with_attention(case):
    encoder = load_encoder(weights_beside(case))
    assert list(encoder.factors) == case.options["scale_factors"]
    case.assert_close(encoder(case.inputs["video"]), "latent")


@pytest.mark.parametrize("case", cases("v*/vae_attn_16x16x4.safetensors", "decode"))
def test_decode_with_attention(case):
    check_video(case, load_decoder(weights_beside(case))(case.inputs["latent"]))
