"""Tile plans against the published implementation's: intervals, ranges, masks."""

import builtins
import re

import pytest
import torch

from rayreel.config.model import VideoVAEConfig
from rayreel.models.tiling import (
    DimensionSizeConfig,
    TileCountConfig,
    TilePlan,
    TileSizeConfig,
    Tiling,
    causal,
    decode_plan,
    encode_plan,
    split_by_count,
    split_by_size,
    trapezoid,
)
from rayreel.types import ScaleFactors
from tests.parity.vectors import cases, entries, weights

PLANS = "common/tile_plans.json"
TILED = [
    case
    for pattern in ("v*/vae_decode.safetensors", "v*/vae_encode.safetensors")
    for case in cases(pattern, "tiled_*")
    if "tiles" in case.values[0].options
]


def parse_tiling(text: str) -> Tiling:
    """Tiling from its published notation, such as ``TileCountConfig(frames=..., ...)``."""
    by_size = text.startswith("TileSizeConfig")
    axes = {
        axis: {"tile_size" if by_size else "num_tiles": int(first), "overlap": int(overlap)}
        for axis, first, overlap in re.findall(r"(\w+)=\w+\(\w+=(\d+), overlap=(\d+)\)", text)
    }
    return (TileSizeConfig if by_size else TileCountConfig).model_validate(axes)


def short_id(entry):
    """What comes first in an entry."""
    return "-".join(map(str, list(entry.values())[:2]))


def bounds(part):
    return [part.start, part.stop]


def ranges(plan: TilePlan):
    axes = {"t": plan.time, "h": plan.height, "w": plan.width}
    return {
        name: [{"in": bounds(span.source), "out": bounds(span.target)} for span in axis.spans]
        for name, axis in axes.items()
    }


def complementary(plan: TilePlan):
    return all(axis.complementary for axis in (plan.time, plan.height, plan.width))


def configs():
    """Notation of each named tiling; entries that fail do not repeat it."""
    return {
        entry["config"]: entry["config_repr"]
        for entry in entries(PLANS, "decode")
        if "config_repr" in entry
    }


def check_plan(make_plan, grid, entry):
    tiling = parse_tiling(configs()[entry["config"]])
    if "error" in entry:
        with pytest.raises(getattr(builtins, entry["error"])):
            make_plan(grid, tiling, ScaleFactors())
        return
    plan = make_plan(grid, tiling, ScaleFactors())
    assert ranges(plan) == entry["axes"]
    assert plan.num_tiles == entry["num_tiles"]
    assert complementary(plan) == entry["complementary"]


@pytest.mark.parametrize("entry", entries(PLANS, "decode"), ids=short_id)
def test_decode_plan(entry):
    check_plan(decode_plan, tuple(entry["latent_thw"]), entry)


@pytest.mark.parametrize("entry", entries(PLANS, "encode"), ids=short_id)
def test_encode_plan(entry):
    frames, height, width = entry["pixel_thw"]
    time, rows, columns = ScaleFactors()
    check_plan(encode_plan, ((frames - 1) // time + 1, height // rows, width // columns), entry)


@pytest.mark.parametrize("entry", entries(PLANS, "from_long_side"), ids=short_id)
def test_tile_sizes_from_the_long_side(entry):
    tiling = TileSizeConfig.from_long_side(
        entry["height"], entry["width"], overlap=entry["overlap"]
    )
    height, width = (
        DimensionSizeConfig(tile_size=entry[side], overlap=entry["overlap"])
        for side in ("tile_h", "tile_w")
    )
    assert (tiling.height, tiling.width) == (height, width)


@pytest.mark.parametrize("entry", entries(PLANS, "split_by_size"), ids=short_id)
def test_split_by_size(entry):
    intervals = split_by_size(
        entry["length"], entry["size"], entry["overlap"], min_size=entry["min_tile_size"] or 0
    )
    assert [list(interval) for interval in intervals] == entry["intervals"]


@pytest.mark.parametrize("entry", entries(PLANS, "split_by_count"), ids=short_id)
def test_split_by_count(entry):
    intervals = split_by_count(entry["length"], entry["num_tiles"], entry["overlap"])
    assert [list(interval) for interval in intervals] == entry["intervals"]
    assert [list(interval) for interval in causal(intervals)] == entry["temporal_causal"]


@pytest.mark.parametrize("entry", entries(PLANS, "split_temporal_causal"), ids=short_id)
def test_split_in_time(entry):
    intervals = causal(split_by_size(entry["length"], entry["size"], entry["overlap"]))
    assert [list(interval) for interval in intervals] == entry["intervals"]


@pytest.mark.parametrize("entry", entries(PLANS, "trapezoid_masks"), ids=short_id)
def test_trapezoid(entry):
    zero_start = entry["left_starts_from_0"]
    mask = trapezoid(entry["length"], entry["left"], entry["right"], zero_start=zero_start)
    torch.testing.assert_close(mask, torch.tensor(entry["mask"]), rtol=0, atol=1e-6)


def plan_of(case) -> TilePlan:
    config = weights(f"{case.folder}/model.safetensors").section("vae", VideoVAEConfig)
    factors = ScaleFactors(config.time_factor, config.space_factor, config.space_factor)
    tiling = parse_tiling(case.options["config"])
    if case.file.endswith("vae_decode.safetensors"):
        frames, height, width = case.inputs["latent"].shape[2:]
        return decode_plan((frames, height, width), tiling, factors)
    frames, height, width = case.out["latent"].shape[2:]
    return encode_plan((frames, height, width), tiling, factors)


@pytest.mark.parametrize("case", TILED)
def test_tiles_of_a_video(case):
    plan = plan_of(case)
    tiles = [
        (t, h, w) for t in plan.time.spans for h in plan.height.spans for w in plan.width.spans
    ]
    extents = (plan.time.extent, plan.height.extent, plan.width.extent)
    if "complementary" in case.options:
        assert complementary(plan) == case.options["complementary"]
    for index, (tile, expected) in enumerate(zip(tiles, case.options["tiles"], strict=True)):
        for axis, span, source, target, extent in zip(
            "thw", tile, expected["in"][2:], expected["out"][2:], extents, strict=True
        ):
            assert bounds(span.source) == source
            # The index leaves the end open, and the mask a single 1, where an axis is not split.
            assert bounds(span.target) == [target[0], extent if target[1] is None else target[1]]
            mask = case.out[f"tile{index}_mask_{axis}"].expand(span.mask.shape)
            case.assert_close(span.mask, mask)
