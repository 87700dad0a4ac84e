"""Tiles chosen by free memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayreel.config.model import VideoVAEConfig
from rayreel.models.tiling import DimensionSizeConfig, TileSizeConfig, decode_plan
from rayreel.models.video_vae import VideoDecoder, tiled_decode
from rayreel.models.video_vae.fitting import auto_tiling, tiled_decode_bytes
from rayreel.types import ScaleFactors
from tests.memory_tracker import MemoryTracker
from tests.official import OFFICIAL

CONFIG = VideoVAEConfig.model_validate(OFFICIAL["2.3"]["vae"])
GIB = 2**30
HD = (16, 34, 60)
"""121 frames of 1088x1920."""

GRIDS = st.tuples(st.integers(1, 40), st.integers(2, 70), st.integers(2, 70))


def chosen(grid, free_bytes, **limits):
    return auto_tiling(CONFIG, grid, free_bytes=free_bytes, itemsize=2, **limits)


def needed(grid, tiling):
    return tiled_decode_bytes(CONFIG, grid, tiling, 2)


def work(grid, tiling):
    plan = decode_plan(grid, tiling, ScaleFactors())
    time, height, width = (
        sum(span.target.stop - span.target.start for span in axis.spans)
        for axis in (plan.time, plan.height, plan.width)
    )
    return time * height * width


@settings(deadline=None)
@given(grid=GRIDS)
def test_published_tiles_are_the_default(grid):
    _, height, width = grid
    assert chosen(grid, 80 * GIB) == TileSizeConfig.from_long_side(32 * height, 32 * width)


def test_published_tiles_need_some_gigabytes():
    published = TileSizeConfig.from_long_side(1088, 1920)
    assert 3 * GIB < needed(HD, published) < 4 * GIB
    assert chosen(HD, needed(HD, published)) == published
    assert chosen(HD, needed(HD, published) - 1) != published


@settings(deadline=None)
@given(grid=GRIDS, gib=st.floats(0.1, 4))
def test_chosen_tiles_fit(grid, gib):
    free = max(int(gib * GIB), needed_at_least(grid))
    tiling = chosen(grid, free)
    assert needed(grid, tiling) <= free
    assert tiling.height.overlap == tiling.width.overlap == 64
    assert tiling.frames.overlap >= 16


def needed_at_least(grid):
    _, height, width = grid
    tiling = TileSizeConfig.from_long_side(32 * height, 32 * width, long_side=96)
    axis = DimensionSizeConfig(tile_size=24, overlap=16)
    return needed(grid, tiling.model_copy(update={"frames": axis}))


@pytest.mark.parametrize("grid", [HD, (33, 22, 40), (61, 68, 120)])
def test_more_memory_never_means_more_work(grid):
    steps = [0.5, 0.8, 1, 1.3, 1.7, 2, 2.5, 3, 4, 8]
    fitting = [gib * GIB for gib in steps if gib * GIB >= needed_at_least(grid)]
    works = [work(grid, chosen(grid, int(free))) for free in fitting]
    assert len(set(works)) > 3
    assert works[:-1] == sorted(works[:-1], reverse=True)


def test_too_little_memory_is_refused_with_what_is_needed():
    least = needed_at_least(HD) / GIB
    with pytest.raises(MemoryError, match=rf"0\.10 GiB .*24 frames of .* need {least:.2f} GiB"):
        chosen(HD, GIB // 10)


@settings(deadline=None)
@given(grid=GRIDS)
def test_tiles_are_no_larger_than_allowed_whatever_is_free(grid):
    tiling = chosen(grid, 400 * GIB, largest=(256, 32))
    assert max(tiling.height.tile_size, tiling.width.tile_size) <= 256
    assert (tiling.frames.tile_size, tiling.frames.overlap) == (32, 16)


@pytest.mark.parametrize("free_gib", [0.9, 80])
def test_estimate_is_close_to_what_a_tiled_decoding_holds(free_gib):
    grid = (16, 16, 24)
    tiling = chosen(grid, int(free_gib * GIB))
    with torch.device("meta"):
        decoder = VideoDecoder(CONFIG).bfloat16()
        latent = torch.empty(1, 128, *grid, dtype=torch.bfloat16)
    with torch.no_grad(), MemoryTracker() as tracker:
        for chunk in tiled_decode(decoder, latent, tiling):
            del chunk
    assert 0.95 < needed(grid, tiling) / tracker.peak < 1.1
