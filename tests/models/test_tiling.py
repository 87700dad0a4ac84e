"""Tiling: worked examples of the specification, and properties of splitting and blending."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayreel.models.tiling import (
    DimensionSizeConfig,
    DimensionTilingConfig,
    TileCountConfig,
    TileSizeConfig,
    blend,
    decode_plan,
    encode_plan,
    split_by_count,
    split_by_size,
    trapezoid,
)
from rayreel.types import ScaleFactors

FACTORS = ScaleFactors(time=8, height=32, width=32)
SMALL = ScaleFactors(time=2, height=2, width=4)


def sizes(frames=(0, 0), height=(0, 0), width=(0, 0)):
    axes = {"frames": frames, "height": height, "width": width}
    return TileSizeConfig(
        **{k: DimensionSizeConfig(tile_size=s, overlap=o) for k, (s, o) in axes.items()}
    )


def counts(frames=(1, 0), height=(1, 0), width=(1, 0)):
    axes = {"frames": frames, "height": height, "width": width}
    return TileCountConfig(
        **{k: DimensionTilingConfig(num_tiles=n, overlap=o) for k, (n, o) in axes.items()}
    )


def decode_fake(grid, tiling, factors):
    """A decoder whose tiles agree with each other, decoded in tiles; and what it decodes to."""
    frames, height, width = grid
    shape = ((frames - 1) * factors.time + 1, height * factors.height, width * factors.width)
    video = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))

    def decode(tile):
        time, rows, columns = tile
        return video[
            :,
            :,
            time.start * factors.time : (time.stop - 1) * factors.time + 1,
            rows.start * factors.height : rows.stop * factors.height,
            columns.start * factors.width : columns.stop * factors.width,
        ]

    return list(blend(decode_plan(grid, tiling, factors), decode)), video


def test_weights_of_tiles_in_time_hide_their_first_frame():
    """The worked example of 6 latent frames in tiles of 3 that share 1."""
    plan = decode_plan((6, 1, 1), sizes(frames=(24, 8)), FACTORS)
    assert [(s.target.start, s.target.stop) for s in plan.time.spans] == [
        (0, 17),
        (8, 33),
        (24, 41),
    ]
    rise, fall = torch.arange(9) / 9, torch.arange(8, 0, -1) / 9
    expected = [
        torch.cat([torch.ones(9), fall]),
        torch.cat([rise, torch.ones(8), fall]),
        torch.cat([rise, torch.ones(8)]),
    ]
    torch.testing.assert_close([s.mask for s in plan.time.spans], expected)


def test_weights_of_tiles_in_space_cross_fade():
    plan = decode_plan((1, 3, 1), sizes(height=(8, 4)), ScaleFactors(8, 4, 4))
    fall = [1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    masks = [torch.tensor(fall), torch.tensor(fall[::-1])]
    torch.testing.assert_close([span.mask for span in plan.height.spans], masks)


def test_encode_plan_of_the_worked_example():
    plan = encode_plan((11, 2, 8), sizes((48, 24), (0, 0), (160, 64)), FACTORS)
    assert [(s.source.start, s.source.stop) for s in plan.time.spans] == [
        (0, 41),
        (16, 65),
        (40, 81),
    ]
    assert [(s.source.start, s.source.stop) for s in plan.width.spans] == [(0, 160), (96, 256)]
    middle = [0, 0.25, 0.5, 0.75, 0.75, 0.5, 0.25]
    torch.testing.assert_close(plan.time.spans[1].mask, torch.tensor(middle))


def test_ramps_longer_than_the_tile_are_cut():
    torch.testing.assert_close(trapezoid(3, 5, 2), torch.tensor([0.25, 1 / 3, 0.25]))


@given(extent=st.integers(1, 60), size=st.integers(1, 20), data=st.data())
def test_tiles_by_size_cover_the_axis(extent, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    tiles = split_by_size(extent, size, overlap)
    assert (tiles[0].start, tiles[-1].end) == (0, extent)
    for before, after in pairwise(tiles):
        assert before.end - after.start == before.right == after.left == overlap
    assert all(tile.end - tile.start <= size for tile in tiles)


@given(num_tiles=st.integers(1, 8), overlap=st.integers(0, 5), spare=st.integers(0, 30))
def test_tiles_by_count_differ_by_one_at_most(num_tiles, overlap, spare):
    extent = num_tiles + overlap + spare
    tiles = split_by_count(extent, num_tiles, overlap)
    lengths = [tile.end - tile.start for tile in tiles]
    assert len(tiles) == num_tiles
    assert (tiles[0].start, tiles[-1].end) == (0, extent)
    assert max(lengths) - min(lengths) <= 1


@given(extent=st.integers(1, 24), size=st.integers(2, 8), data=st.data())
def test_weights_sum_to_one(extent, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    tiling = sizes(frames=(2 * size, 2 * overlap), height=(2 * size, 2 * overlap))
    plan = decode_plan((extent, extent, 1), tiling, SMALL)
    for axis in (plan.time, plan.height):
        total = torch.zeros(axis.extent)
        for span, weight in zip(axis.spans, axis.weights, strict=True):
            total[span.target] += weight
        torch.testing.assert_close(total, torch.ones(axis.extent))


@pytest.mark.parametrize(
    "tiling",
    [
        sizes(frames=(6, 2), height=(6, 2), width=(16, 4)),
        sizes(frames=(8, 6), height=(8, 6)),
        counts(frames=(3, 1), width=(2, 2)),
        counts(),
    ],
    ids=["by size", "more than half shared", "by count", "whole"],
)
def test_tiles_that_agree_blend_to_the_whole(tiling):
    chunks, video = decode_fake((7, 5, 6), tiling, SMALL)
    torch.testing.assert_close(torch.cat(chunks, dim=2), video)


def test_frames_are_handed_out_as_soon_as_they_are_done():
    chunks, _ = decode_fake((16, 2, 2), TileSizeConfig(), FACTORS)
    assert [chunk.shape[2] for chunk in chunks] == [48, 73]


def test_no_chunk_is_empty():
    """Tiles of two latent frames that share one: the first two start at the same frame."""
    chunks, video = decode_fake((4, 2, 2), sizes(frames=(4, 2)), SMALL)
    assert all(chunk.shape[2] for chunk in chunks)
    torch.testing.assert_close(torch.cat(chunks, dim=2), video)


def test_blend_keeps_the_dtype_of_the_tiles():
    plan = decode_plan((3, 2, 2), sizes(frames=(4, 2)), SMALL)

    def ones(tile):
        return torch.ones(1, 3, (tile[0].stop - tile[0].start - 1) * 2 + 1, 4, 8).bfloat16()

    assert {chunk.dtype for chunk in blend(plan, ones)} == {torch.bfloat16}


@pytest.mark.parametrize("tile", [(32, 0), (72, 32), (96, 16)])
def test_sizes_off_the_latent_grid_are_rejected(tile):
    with pytest.raises(ValueError, match="multiples of 32"):
        decode_plan((1, 8, 8), sizes(height=tile), FACTORS)


def test_overlap_of_a_whole_tile_is_rejected():
    with pytest.raises(ValueError, match="smaller than tile_size"):
        DimensionSizeConfig(tile_size=64, overlap=64)
    with pytest.raises(ValueError, match="smaller than the tile"):
        split_by_size(10, 4, 4)


@pytest.mark.parametrize(
    "tiling", [sizes(frames=(32, 8)), sizes(height=(128, 32)), sizes(width=(128, 32))]
)
def test_encoding_needs_wide_overlaps(tiling):
    assert decode_plan((9, 8, 8), tiling, FACTORS)
    with pytest.raises(ValueError, match="too small to encode"):
        encode_plan((9, 8, 8), tiling, FACTORS)


def test_more_tiles_than_fit_are_rejected():
    with pytest.raises(ValueError, match="use at most 2 tiles"):
        split_by_count(3, 3, 1)
