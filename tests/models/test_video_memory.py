"""Memory of the video VAE: estimates against the tensors that are alive in a pass."""

import pytest
import torch

from rayreel.config.model import VideoVAEConfig
from rayreel.models.video_vae import VideoDecoder, VideoEncoder
from rayreel.models.video_vae.memory import decode_bytes, encode_bytes
from tests.memory_tracker import MemoryTracker
from tests.official import OFFICIAL

Kind = type[VideoDecoder] | type[VideoEncoder]

SIZES = [(1, 64, 64), (9, 64, 96), (25, 256, 384), (73, 448, 768), (121, 1088, 1920)]
DECODER_BLOCKS = {
    "res_x_y": ["res_x_y", {"multiplier": 2}],
    "compress_time": ["compress_time", {"multiplier": 2}],
    "compress_space": ["compress_space", {"multiplier": 1}],
    "compress_all": ["compress_all", {"multiplier": 1, "residual": True}],
    "attn": ["attn", {}],
}
ENCODER_BLOCKS = {
    "res_x_y": ["res_x_y", {"multiplier": 2}],
    "compress_time": ["compress_time", {}],
    "compress_space": ["compress_space_res", {"multiplier": 4}],
    "compress_all": ["compress_all_x_y", {"multiplier": 2}],
    "attn": ["attn", {}],
}


def official(generation, **changes):
    return VideoVAEConfig.model_validate(OFFICIAL[generation]["vae"] | changes)


def single(kind, block, **changes):
    """A network that consists of one block beside its first and last layer."""
    small = {"latent_channels": 32, "decoder_base_channels": 32, "timestep_conditioning": False}
    return VideoVAEConfig.model_validate({f"{kind}_blocks": [block], **small, **changes})


def measured(kind: Kind, config: VideoVAEConfig, frames: int, height: int, width: int) -> int:
    shape: tuple[int, ...] = (3, frames, height, width)
    if kind is VideoDecoder:
        time, space = config.time_factor, config.space_factor
        grid = ((frames - 1) // time + 1, height // space, width // space)
        shape = (config.latent_channels, *grid)
    with torch.device("meta"):
        network = kind(config).bfloat16()
        x = torch.empty(1, *shape, dtype=torch.bfloat16)
    with torch.no_grad(), MemoryTracker() as tracker:
        network(x)
    return int(tracker.peak)


@pytest.mark.parametrize("generation", ["2.0", "2.3"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_estimates_are_close_to_what_published_networks_hold(generation, size):
    config = official(generation)
    frames, height, width = size
    decoding, encoding = (
        estimate(config, frames, height, width, 2) / measured(kind, config, *size)
        for estimate, kind in ((decode_bytes, VideoDecoder), (encode_bytes, VideoEncoder))
    )
    assert 0.95 < decoding < 1.1
    assert 0.95 < encoding < 1.1


@pytest.mark.parametrize("block", DECODER_BLOCKS)
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_every_block_of_a_decoder_is_estimated(block, padding):
    config = single("decoder", DECODER_BLOCKS[block], spatial_padding_mode=padding)
    peak = measured(VideoDecoder, config, 17, 64, 96)
    assert 0.8 < decode_bytes(config, 17, 64, 96, 2) / peak < 1.5


@pytest.mark.parametrize("block", ENCODER_BLOCKS)
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_every_block_of_an_encoder_is_estimated(block, padding):
    config = single("encoder", ENCODER_BLOCKS[block], spatial_padding_mode=padding)
    peak = measured(VideoEncoder, config, 17, 64, 96)
    assert 0.8 < encode_bytes(config, 17, 64, 96, 2) / peak < 1.5


def test_memory_of_a_published_tile_is_a_few_gigabytes():
    """73 frames of 448x768, at 80 bytes per pixel and a bit for the frames beyond the ends."""
    config = official("2.3")
    nbytes = decode_bytes(config, 73, 448, 768, 2)
    assert nbytes == pytest.approx(73 * 448 * 768 * 80, rel=0.01)
    assert decode_bytes(config, 73, 448, 768, 4) == 2 * nbytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("generation", ["2.0", "2.3"])
@pytest.mark.parametrize("size", [(73, 448, 768), (25, 256, 384)], ids=str)
def test_estimates_hold_on_the_gpu(generation, size):
    """What kernels allocate inside is the difference."""
    config = official(generation)
    frames, height, width = size
    with torch.device("cuda"), torch.inference_mode():
        decoder = VideoDecoder(config).bfloat16()
        latent = torch.randn(1, 128, (frames - 1) // 8 + 1, height // 32, width // 32)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        decoder(latent.bfloat16())
        peak = torch.cuda.max_memory_allocated() - before
    estimate = decode_bytes(config, frames, height, width, 2)
    assert 0.8 < estimate / peak < 1.5, f"{estimate / 2**20:.0f} of {peak / 2**20:.0f} MiB"
