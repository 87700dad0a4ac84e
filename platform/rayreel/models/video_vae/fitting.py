"""Tiles that fit into the memory that is free."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from rayreel.config.model import VideoVAEConfig
from rayreel.models.tiling import (
    MIN_ENCODE_OVERLAP,
    DimensionSizeConfig,
    Grid,
    TileSizeConfig,
    Tiling,
    pixel_range,
    tile_intervals,
)
from rayreel.models.video_vae.memory import decode_bytes
from rayreel.types import ScaleFactors

LONG_SIDE, FRAMES, FRAMES_OVERLAP, SIDE_OVERLAP = 768, 80, 24, 64
"""Of the tiles that published pipelines decode with."""

FLOAT32_BYTES = 4


def auto_tiling(
    config: VideoVAEConfig,
    grid: Grid,
    *,
    free_bytes: int,
    itemsize: int,
    largest: tuple[int, int] = (LONG_SIDE, FRAMES),
) -> TileSizeConfig:
    """Tiles to decode with: the published ones if they fit, else those that decode the least twice.

    Args:
        config: Of the decoder.
        grid: Latent frames, height and width.
        free_bytes: What the decoder may use.
        itemsize: Bytes of an element of its weights.
        largest: Long side and frames of a tile at most.

    Returns:
        Tiles in the aspect of the frame, no larger than the published ones.

    Raises:
        MemoryError: If not even the smallest tiles fit.
    """
    factors = _factors(config)
    tilings = _largest_first(grid, factors, largest)

    def candidate(tiling: TileSizeConfig) -> _Candidate:
        needed = tiled_decode_bytes(config, grid, tiling, itemsize)
        return _Candidate(tiling, needed, _decoded_positions(grid, tiling, factors))

    first = candidate(next(tilings))
    if first.needed <= free_bytes:
        return first.tiling
    smaller = [candidate(tiling) for tiling in tilings]
    fitting = [one for one in smaller if one.needed <= free_bytes]
    if not fitting:
        _refuse(grid, factors, min([first, *smaller], key=lambda one: one.needed), free_bytes)
    # Of equal work, the larger tiles have fewer seams.
    return min(fitting, key=lambda one: (one.work, -one.needed)).tiling


def tiled_decode_bytes(config: VideoVAEConfig, grid: Grid, tiling: Tiling, itemsize: int) -> int:
    """Peak of a tiled decoding: the largest tile, beside the frames that tiles are added up in.

    Args:
        config: Of the decoder.
        grid: Latent frames, height and width.
        tiling: Size or number of tiles.
        itemsize: Bytes of an element of weights, activations and frames.

    Raises:
        ValueError: If the tiling does not fit the grid.
    """
    time, rows, columns = _pixel_ranges(grid, tiling, _factors(config))
    frames, height, width = (max(map(_length, axis)) for axis in (time, rows, columns))
    carried = [before.stop - after.start for before, after in pairwise(time)]
    buffered = (frames + max(carried, default=0)) * rows[-1].stop * columns[-1].stop
    # After the decoder, a tile is multiplied by float32 weights, once along each axis.
    weighting = config.out_channels * frames * height * width * (itemsize + 2 * FLOAT32_BYTES)
    decoding = decode_bytes(config, frames, height, width, itemsize)
    return config.out_channels * buffered * itemsize + max(decoding, weighting)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Tiles, the bytes that decoding them takes, and the positions that it computes."""

    tiling: TileSizeConfig
    needed: int
    work: int


def _largest_first(
    grid: Grid, factors: ScaleFactors, largest: tuple[int, int]
) -> Iterator[TileSizeConfig]:
    """Tilings from the largest allowed to the smallest that still overlap enough."""
    long_side, most_frames = largest
    _, height, width = grid
    step = factors.height
    for side in range(long_side, SIDE_OVERLAP, -step):
        tiling = TileSizeConfig.from_long_side(
            height * step, width * step, factor=step, long_side=side, overlap=SIDE_OVERLAP
        )
        for frames in range(most_frames, MIN_ENCODE_OVERLAP.time, -factors.time):
            # With the published overlap, shorter tiles would decode most frames many times.
            few = frames < 2 * FRAMES_OVERLAP
            overlap = MIN_ENCODE_OVERLAP.time if few else FRAMES_OVERLAP
            axis = DimensionSizeConfig(tile_size=frames, overlap=overlap)
            yield tiling.model_copy(update={"frames": axis})


def _decoded_positions(grid: Grid, tiling: Tiling, factors: ScaleFactors) -> int:
    return math.prod(sum(map(_length, axis)) for axis in _pixel_ranges(grid, tiling, factors))


def _pixel_ranges(grid: Grid, tiling: Tiling, factors: ScaleFactors) -> list[list[slice]]:
    """Tiles along time, height and width."""
    axes = zip(tile_intervals(grid, tiling, factors), factors, (True, False, False), strict=True)
    return [
        [pixel_range(tile, factor, in_time=in_time) for tile in tiles]
        for tiles, factor, in_time in axes
    ]


def _length(pixels: slice) -> int:
    return int(pixels.stop - pixels.start)


def _factors(config: VideoVAEConfig) -> ScaleFactors:
    return ScaleFactors(config.time_factor, config.space_factor, config.space_factor)


def _refuse(grid: Grid, factors: ScaleFactors, least: _Candidate, free_bytes: int) -> NoReturn:
    tile = least.tiling
    raise MemoryError(
        f"{free_bytes / 2**30:.2f} GiB are too little to decode {grid[1] * factors.height}x"
        f"{grid[2] * factors.width} pixels: the smallest tiles, {tile.frames.tile_size} frames of "
        f"{tile.height.tile_size}x{tile.width.tile_size}, need {least.needed / 2**30:.2f} GiB"
    )
