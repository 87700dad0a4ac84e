"""Seams of tiles: how visible they are, and where tiles equal the whole."""

import pytest
import torch

from rayreel.config.model import VideoVAEConfig
from rayreel.models.seams import seam_metric
from rayreel.models.tiling import TileSizeConfig, decode_plan
from rayreel.models.video_vae import VideoDecoder, VideoEncoder, tiled_decode, tiled_encode
from rayreel.types import ScaleFactors
from tests.memory_tracker import MemoryTracker
from tests.models.test_tiling import decode_fake, sizes
from tests.official import OFFICIAL

# A cut changes less than 24 pixels and 8 frames: two convolutions see one latent position further,
# of 8 pixels and 2 frames, one a position of 4 pixels and a frame, the last one of 2 and a frame.
SHALLOW = VideoVAEConfig.model_validate(
    {
        "latent_channels": 4,
        "decoder_base_channels": 8,
        "patch_size": 2,
        "timestep_conditioning": False,
        "decoder_blocks": [
            ["compress_all", {"multiplier": 1}],
            ["compress_space", {"multiplier": 2}],
        ],
        "encoder_blocks": [["compress_space_res", {}], ["compress_all_res", {}]],
    }
)
FACTORS = ScaleFactors(2, 8, 8)
GRID = (24, 20, 24)


@pytest.fixture(scope="module")
def whole():
    """A decoder of few layers, a latent, and the clip."""
    torch.manual_seed(0)
    decoder = VideoDecoder(SHALLOW).requires_grad_(False)
    latent = torch.randn(1, 4, *GRID)
    return decoder, latent, decoder(latent)


def in_tiles(whole, tiling):
    decoder, latent, _ = whole
    return torch.cat(list(tiled_decode(decoder, latent, tiling)), dim=2)


def far_from_borders(axis, distance):
    """Positions that no tile ends near."""
    position = torch.arange(axis.extent)
    edges = {edge for s in axis.spans for edge in (s.target.start, s.target.stop)}
    far = [(position + 0.5 - edge).abs() > distance for edge in edges - {0, axis.extent}]
    return torch.stack(far).all(dim=0)


@pytest.mark.parametrize("axis", ["frames", "height", "width"])
def test_tiles_equal_the_whole_where_they_see_the_same(whole, axis):
    tiling = sizes(**{axis: (32, 12) if axis == "frames" else (144, 72)})
    plan = decode_plan(GRID, tiling, FACTORS)
    name, dim, reach = {
        "frames": ("time", 2, 8), "height": ("height", 3, 24), "width": ("width", 4, 24)
    }[axis]  # fmt: skip
    far = far_from_borders(getattr(plan, name), reach)
    difference = (in_tiles(whole, tiling) - whole[2]).abs().amax([d for d in range(5) if d != dim])
    assert far.sum() > 10
    assert difference[far].max() < 1e-5
    assert difference[~far].max() > 1e-2


def test_blended_tiles_of_a_small_field_show_no_seams(whole):
    *_, reference = whole
    for tiling in (sizes(height=(104, 72)), sizes(width=(104, 72)), sizes(frames=(24, 16))):
        plan = decode_plan(GRID, tiling, FACTORS)
        assert seam_metric(in_tiles(whole, tiling), plan, reference) < 1


def test_abutted_tiles_show_seams(whole):
    *_, reference = whole
    for tiling in (sizes(height=(40, 0)), sizes(width=(40, 0)), sizes(frames=(12, 0))):
        plan = decode_plan(GRID, tiling, FACTORS)
        assert seam_metric(in_tiles(whole, tiling), plan, reference) > 2


@pytest.mark.parametrize(("overlap", "low", "high"), [(0, 50, 60), (32, 0.9, 2)])
def test_steps_between_smooth_tiles_are_seen_without_a_reference(overlap, low, high):
    """A ramp of one level per row, in tiles that differ by 50 levels; blended over 32 rows."""
    tiling = sizes(height=(64, overlap))
    plan = decode_plan((1, 12, 1), tiling, ScaleFactors(1, 8, 8))
    ramp = torch.arange(96.0).view(1, 1, 1, 96, 1).expand(1, 3, 1, 96, 8)
    video = torch.zeros_like(ramp)
    for index, (span, weight) in enumerate(
        zip(plan.height.spans, plan.height.weights, strict=True)
    ):
        video[..., span.target, :] += (ramp[..., span.target, :] + 50 * index) * weight[:, None]
    assert low < seam_metric(video, plan) < high


def test_tiles_that_agree_have_no_seams():
    tiling = sizes(height=(6, 2), width=(16, 4))
    grid = (3, 40, 20)
    factors = ScaleFactors(time=2, height=2, width=4)
    chunks, video = decode_fake(grid, tiling, factors)
    plan = decode_plan(grid, tiling, factors)
    assert seam_metric(video, plan, video) == 1
    assert seam_metric(torch.cat(chunks, dim=2), plan) == pytest.approx(1, abs=0.05)


def test_a_single_tile_has_no_seams():
    plan = decode_plan((1, 2, 2), TileSizeConfig.whole(), FACTORS)
    assert seam_metric(torch.zeros(1, 3, 1, 16, 16), plan) == 1


def test_a_plan_of_another_size_is_refused():
    plan = decode_plan((1, 2, 2), TileSizeConfig.whole(), FACTORS)
    with pytest.raises(ValueError, match=r"for \(1, 16, 16\) positions, not \(1, 16, 8\)"):
        seam_metric(torch.zeros(1, 3, 1, 16, 8), plan)


MASKS = 64 * 1024
"""Bytes that the masks of more tiles may take."""


@pytest.mark.parametrize("kind", ["decode", "encode"])
def test_memory_of_tiles_does_not_grow_with_the_clip(kind):
    """What encoding keeps are the latents: 128 channels of two bytes for 8x32x32 pixels."""
    config = VideoVAEConfig.model_validate(OFFICIAL["2.0"]["vae"])
    peaks = [tiled_peak(kind, config, frames) for frames in (33, 65)]
    latents = 32 * 8 * 12 * 128 * 2 if kind == "encode" else 0
    assert peaks[1] - peaks[0] <= 2 * latents + MASKS
    assert peaks[0] > 500 * (latents + MASKS)


def tiled_peak(kind, config, latent_frames):
    with torch.device("meta"):
        network = (VideoDecoder if kind == "decode" else VideoEncoder)(config).bfloat16()
        latent = torch.empty(1, 128, latent_frames, 8, 12, dtype=torch.bfloat16)
        video = torch.empty(1, 3, 8 * latent_frames - 7, 256, 384, dtype=torch.bfloat16)
    with torch.no_grad(), MemoryTracker() as tracker:
        if isinstance(network, VideoEncoder):
            tiled_encode(network, video, TileSizeConfig())
        else:
            for chunk in tiled_decode(network, latent, TileSizeConfig()):
                del chunk
    return tracker.peak
