"""Overlapping tiles: splitting an axis, mapping tiles between latents and pixels, blending results.

Letters: B batch, C channels, F frames, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rayreel.config.base import StrictModel
from rayreel.types import ScaleFactors

Slices = tuple[slice, slice, slice]
"""A tile's place along time, height and width."""

Grid = tuple[int, int, int]
"""Latent frames, height and width."""

MIN_ENCODE_OVERLAP = ScaleFactors(time=16, height=64, width=64)
"""Frames and pixels that tiles of an encoder share at least: less shows as seams."""


class Interval(NamedTuple):
    """One tile along one axis: ``[start, end)``, and how much of it blends with each neighbour."""

    start: int
    end: int
    left: int
    right: int


def split_by_size(extent: int, size: int, overlap: int, *, min_size: int = 0) -> list[Interval]:
    """Tiles of a given size; the last one may be shorter.

    Args:
        extent: Length of the axis.
        size: Length of a tile.
        overlap: What neighbours share, below ``size``.
        min_size: A shorter last tile is moved back until it has this length.

    Returns:
        Intervals from left to right that cover the axis.

    Raises:
        ValueError: If the overlap leaves no progress from tile to tile.
    """
    if overlap >= size:
        raise ValueError(f"overlap={overlap} must be smaller than the tile, {size}")
    if extent <= max(size, min_size):
        return [Interval(0, extent, 0, 0)]
    step = size - overlap
    count = (extent + size - 2 * overlap - 1) // step
    starts = [index * step for index in range(count)]
    starts[-1] = min(starts[-1], extent - min_size)
    ends = [start + size for start in starts[:-1]] + [extent]
    shared = [end - start for end, start in zip(ends[:-1], starts[1:], strict=True)]
    return [
        Interval(*bounds) for bounds in zip(starts, ends, [0, *shared], [*shared, 0], strict=True)
    ]


def split_by_count(extent: int, num_tiles: int, overlap: int) -> list[Interval]:
    """A given number of tiles, as equal as they can be, the longer ones first.

    Raises:
        ValueError: If the axis is too short for so many tiles.
    """
    if overlap > extent - num_tiles:
        raise ValueError(
            f"{num_tiles} tiles that overlap by {overlap} do not fit into {extent} latent "
            f"positions; use at most {max(1, extent - overlap)} tiles"
        )
    size, rest = divmod(extent + overlap * (num_tiles - 1), num_tiles)
    return [
        Interval(start + min(i, rest), end + min(i, rest) + (i < rest), left, right)
        for i, (start, end, left, right) in enumerate(split_by_size(extent - rest, size, overlap))
    ]


def causal(intervals: Sequence[Interval]) -> list[Interval]:
    """Give every tile of the time axis but the first one more latent frame on its left.

    A tile decodes that frame as the first of a clip, to one pixel frame; it gets no weight.
    """
    first, *others = intervals
    return [first, *(Interval(s - 1, e, left + 1, right) for s, e, left, right in others)]


def trapezoid(length: int, left: int, right: int, *, zero_start: bool = False) -> Tensor:
    """Weights of a tile that rise over its left overlap and fall over its right one.

    Args:
        length: Positions of the tile.
        left: Positions that rise.
        right: Positions that fall.
        zero_start: Whether the rise starts from 0, with ``left`` steps instead of ``left + 1``.

    Returns:
        Float32 ``(length,)`` in [0, 1].
    """
    left, right = min(left, length), min(right, length)
    mask = torch.ones(length)
    if left:
        first = 0 if zero_start else 1
        mask[:left] = torch.arange(first, left + first) / (left + first)
    if right:
        mask[length - right :] *= torch.arange(right, 0, -1) / (right + 1)
    return mask


class DimensionSizeConfig(StrictModel):
    """Tiles of one axis by size."""

    tile_size: int = Field(default=0, ge=0, description="frames or pixels; 0 leaves the axis whole")
    overlap: int = Field(default=0, ge=0, description="frames or pixels that neighbours share")

    @model_validator(mode="after")
    def _tiles_progress(self) -> "DimensionSizeConfig":
        if self.overlap and self.overlap >= self.tile_size:
            raise ValueError(
                f"overlap={self.overlap} must be smaller than tile_size={self.tile_size}"
            )
        return self

    def split(self, extent: int, factor: int) -> list[Interval]:
        """Intervals of a latent axis whose positions are ``factor`` frames or pixels.

        Raises:
            ValueError: If the sizes do not fit the factor.
        """
        if not self.tile_size:
            return [Interval(0, extent, 0, 0)]
        if self.tile_size < 2 * factor or self.tile_size % factor or self.overlap % factor:
            raise ValueError(
                f"tile_size={self.tile_size} and overlap={self.overlap} must be multiples of "
                f"{factor}, tile_size at least {2 * factor}"
            )
        overlap = self.overlap // factor
        return split_by_size(extent, max(2, overlap + 1, self.tile_size // factor), overlap)


class DimensionTilingConfig(StrictModel):
    """Tiles of one axis by number."""

    num_tiles: int = Field(default=1, ge=1, description="tiles along the axis")
    overlap: int = Field(default=0, ge=0, description="latent positions that neighbours share")

    def split(self, extent: int, factor: int) -> list[Interval]:  # noqa: ARG002 - as in DimensionSizeConfig
        """Intervals of a latent axis.

        Raises:
            ValueError: If the axis is too short.
        """
        return split_by_count(extent, self.num_tiles, self.overlap)


class TileSizeConfig(StrictModel):
    """Tiles by size in frames and pixels."""

    frames: DimensionSizeConfig = DimensionSizeConfig(tile_size=80, overlap=24)
    height: DimensionSizeConfig = DimensionSizeConfig(tile_size=768, overlap=64)
    width: DimensionSizeConfig = DimensionSizeConfig(tile_size=768, overlap=64)

    @classmethod
    def whole(cls) -> "TileSizeConfig":
        """A single tile."""
        axis = DimensionSizeConfig()
        return cls(frames=axis, height=axis, width=axis)

    @classmethod
    def from_long_side(
        cls, height: int, width: int, *, factor: int = 32, long_side: int = 768, overlap: int = 64
    ) -> "TileSizeConfig":
        """Tiles in the aspect of the frame; the defaults are what published pipelines decode with.

        Args:
            height: Of the frame, in pixels.
            width: Of the frame, in pixels.
            factor: Pixels per latent position.
            long_side: Of a tile, in pixels.
            overlap: In pixels, the same along both sides.
        """

        def side(extent: int) -> DimensionSizeConfig:
            positions = round(long_side // factor * (extent // factor) / longest)
            size = max(2, overlap // factor + 1, positions) * factor
            return DimensionSizeConfig(tile_size=size, overlap=overlap)

        longest = max(height, width) // factor
        return cls(height=side(height), width=side(width))


class TileCountConfig(StrictModel):
    """Tiles by number, overlapping by latent positions."""

    frames: DimensionTilingConfig = DimensionTilingConfig()
    height: DimensionTilingConfig = DimensionTilingConfig()
    width: DimensionTilingConfig = DimensionTilingConfig()


Tiling = TileSizeConfig | TileCountConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One tile along one axis.

    Attributes:
        source: What the network reads.
        target: What it writes.
        mask: Float32 weights over ``target``.
    """

    source: slice
    target: slice
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Axis:
    """All tiles along one axis, in order."""

    spans: tuple[Span, ...]

    @property
    def extent(self) -> int:
        """Length of the result."""
        return int(self.spans[-1].target.stop)

    @property
    def complementary(self) -> bool:
        """Whether the masks add up to 1 everywhere."""
        return torch.allclose(self._total, torch.ones(()), rtol=0, atol=1e-5)

    @property
    def weights(self) -> list[Tensor]:
        """The masks, scaled to add up to 1 where they do not."""
        if self.complementary:
            return [span.mask for span in self.spans]
        total = self._total
        return [span.mask / total[span.target] for span in self.spans]

    @property
    def _total(self) -> Tensor:
        total = torch.zeros(self.extent)
        for span in self.spans:
            total[span.target] += span.mask
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """Tiles of a video: every combination of the spans of its axes."""

    time: Axis
    height: Axis
    width: Axis

    @property
    def num_tiles(self) -> int:
        """Calls of the network."""
        return len(self.time.spans) * len(self.height.spans) * len(self.width.spans)


def decode_plan(grid: Grid, tiling: Tiling, factors: ScaleFactors) -> TilePlan:
    """Tiles that read latents and write pixels.

    Args:
        grid: Latent frames, height and width.
        tiling: Size or number of tiles.
        factors: Pixels per latent position.

    Raises:
        ValueError: If the tiling does not fit.
    """

    def span(tile: Interval, factor: int, *, in_time: bool) -> Span:
        pixels = pixel_range(tile, factor, in_time=in_time)
        left = tile.left * factor
        if in_time and tile.left:
            # The extra frame of a causal tile is one pixel frame, not ``factor`` of them.
            left -= factor - 1
        mask = trapezoid(_length(pixels), left, tile.right * factor, zero_start=in_time)
        return Span(source=slice(tile.start, tile.end), target=pixels, mask=mask)

    return _plan(grid, tiling, factors, span)


def encode_plan(grid: Grid, tiling: Tiling, factors: ScaleFactors) -> TilePlan:
    """Tiles that read pixels and write latents; arguments as of ``decode_plan``.

    Raises:
        ValueError: If the tiling does not fit, or sizes overlap by less than 16 frames or 64 px.
    """
    if isinstance(tiling, TileSizeConfig):
        axes = (tiling.frames, tiling.height, tiling.width)
        for axis, least in zip(axes, MIN_ENCODE_OVERLAP, strict=True):
            if axis.tile_size and axis.overlap < least:
                raise ValueError(
                    f"overlap={axis.overlap} is too small to encode in tiles; use at least {least}"
                )

    def span(tile: Interval, factor: int, *, in_time: bool) -> Span:
        mask = trapezoid(tile.end - tile.start, tile.left, tile.right, zero_start=in_time)
        pixels = pixel_range(tile, factor, in_time=in_time)
        return Span(source=pixels, target=slice(tile.start, tile.end), mask=mask)

    return _plan(grid, tiling, factors, span)


class _MakeSpan(Protocol):
    def __call__(self, tile: Interval, factor: int, *, in_time: bool) -> Span: ...


def _plan(grid: Grid, tiling: Tiling, factors: ScaleFactors, span: _MakeSpan) -> TilePlan:
    time, rows, columns = tile_intervals(grid, tiling, factors)
    return TilePlan(
        time=Axis(tuple(span(tile, factors.time, in_time=True) for tile in time)),
        height=Axis(tuple(span(tile, factors.height, in_time=False) for tile in rows)),
        width=Axis(tuple(span(tile, factors.width, in_time=False) for tile in columns)),
    )


def tile_intervals(
    grid: Grid, tiling: Tiling, factors: ScaleFactors
) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """Tiles in latent positions along time, height and width.

    Raises:
        ValueError: If the tiling does not fit.
    """
    frames, height, width = grid
    return (
        causal(tiling.frames.split(frames, factors.time)),
        tiling.height.split(height, factors.height),
        tiling.width.split(width, factors.width),
    )


def pixel_range(tile: Interval, factor: int, *, in_time: bool) -> slice:
    """Pixels of a latent interval; in time the first latent frame is a single pixel frame."""
    start, end = tile.start * factor, tile.end * factor
    return slice(start, end - factor + 1 if in_time else end)


def _length(span: slice) -> int:
    return int(span.stop - span.start)


def blend(plan: TilePlan, compute: Callable[[Slices], Tensor]) -> Iterator[Tensor]:
    """Compute all tiles, time slowest, and add them up by weight.

    Args:
        plan: The tiles.
        compute: From a tile's source to its result ``(B, C, ...)``, which has the target's extents.

    Yields:
        ``(B, C, frames, H, W)``: the part of the result that no later tile adds to.
    """
    spans = plan.time.spans
    following = [*(span.target.start for span in spans[1:]), plan.time.extent]
    carried: Tensor | None = None
    for span, weight, end in zip(spans, plan.time.weights, following, strict=True):
        group = _blend_in_space(plan, span, weight, compute)
        if carried is not None:
            group[:, :, : carried.shape[2]] += carried
        # Causal tiles that are one latent frame apart share their first frame: nothing is done yet.
        if done := end - span.target.start:
            yield group[:, :, :done]
        # A copy, so that the frames that are done leave memory before the next tiles are computed.
        carried = group[:, :, done:].clone()
        del group


def _blend_in_space(
    plan: TilePlan, time: Span, time_weight: Tensor, compute: Callable[[Slices], Tensor]
) -> Tensor:
    group: Tensor | None = None
    for (rows, row_weight), (columns, column_weight) in product(
        zip(plan.height.spans, plan.height.weights, strict=True),
        zip(plan.width.spans, plan.width.weights, strict=True),
    ):
        tile = compute((time.source, rows.source, columns.source))
        if group is None:
            extents = (_length(time.target), plan.height.extent, plan.width.extent)
            group = tile.new_zeros(*tile.shape[:2], *extents)
        weights = time_weight[:, None, None], row_weight[:, None], column_weight
        for axis_weight in weights:
            # Float32 weights keep the product of bfloat16 tiles in float32 until it is added.
            tile = tile * axis_weight.to(tile.device)
        group[..., rows.target, columns.target] += tile
        # Or it would be in memory beside the next one.
        del tile
    assert group is not None
    return group
