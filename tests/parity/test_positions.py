import pytest

from rayreel.diffusion.patchifiers import (
    audio_positions,
    latent_bounds,
    patchify_audio,
    patchify_video,
    pixel_bounds,
    unpatchify_audio,
    unpatchify_video,
    video_positions,
)
from rayreel.types import AudioLatentShape, ScaleFactors, VideoLatentShape
from tests.parity.vectors import cases, entries

FILE = "common/positions.safetensors"
SHAPES = "common/shapes.json"
FACTORS = ScaleFactors()


def video_shape(size):
    return VideoLatentShape(
        **dict(zip(("batch", "channels", "frames", "height", "width"), size, strict=True))
    )


@pytest.mark.parametrize("case", cases(FILE, "video_b*"))
def test_video_grid(case):
    options = case.options
    shape = video_shape([options["batch"], 1, *(options[k] for k in ("frames", "height", "width"))])
    factors = ScaleFactors(*options["scale_factors"])
    bounds = latent_bounds(shape, options["patch_size"])
    case.assert_close(bounds, "latent_bounds")
    case.assert_close(pixel_bounds(bounds, factors, causal=False), "pixel_coords")
    case.assert_close(pixel_bounds(bounds, factors, causal=True), "pixel_coords_causal")
    positions = video_positions(shape, fps=options["fps"], factors=factors)
    case.assert_close(positions, "positions_seconds")


@pytest.mark.parametrize("case", cases(FILE, "video_scale_*"))
def test_video_positions_follow_the_scale_factors(case):
    options = case.options
    positions = video_positions(
        video_shape([1, 1, *options["latent"]]),
        fps=options["fps"],
        factors=ScaleFactors(*options["scale_factors"]),
    )
    case.assert_close(positions, "positions_seconds")


@pytest.mark.parametrize("case", cases(FILE, "video_patch*"))
def test_video_patches(case):
    latent, patch_size = case.inputs["latent"], case.options["patch_size"]
    shape = video_shape(latent.shape)
    tokens = patchify_video(latent, patch_size)
    case.assert_close(tokens, "tokens")
    case.assert_close(unpatchify_video(tokens, shape, patch_size), latent)
    if "bounds" in case.out:
        case.assert_close(latent_bounds(shape, patch_size), "bounds")


@pytest.mark.parametrize("case", cases(FILE, "audio_patch"))
def test_audio_patches(case):
    latent = case.inputs["latent"]
    batch, channels, frames, bins = latent.shape
    shape = AudioLatentShape(batch=batch, channels=channels, frames=frames, bins=bins)
    tokens = patchify_audio(latent)
    case.assert_close(tokens, "tokens")
    case.assert_close(unpatchify_audio(tokens, shape), latent)


@pytest.mark.parametrize(
    "case", [param for param in cases(FILE, "audio_*") if "frames" in param.values[0].options]
)
def test_audio_positions(case):
    names = {
        "sample_rate": "sample_rate_hz",
        "hop_length": "hop_length",
        "audio_latent_downsample_factor": "downsample",
        "shift": "shift",
        "is_causal": "causal",
    }
    options = {ours: case.options[name] for name, ours in names.items() if name in case.options}
    shape = AudioLatentShape(batch=1, channels=1, frames=case.options["frames"], bins=1)
    case.assert_close(audio_positions(shape, **options), "positions")


@pytest.mark.parametrize("entry", entries(SHAPES, "video_latent_from_pixels"))
def test_latent_shape_of_pixels(entry):
    frames, height, width = entry["pixel"]
    channels = entry["upscaled"][0]
    shape = VideoLatentShape.from_pixels(
        frames=frames, height=height, width=width, channels=channels, factors=FACTORS
    )
    assert [shape.frames, shape.height, shape.width] == entry["latent"]
    assert shape.tokens == entry["tokens"]
    upscaled = [shape.pixel_frames(FACTORS)]
    upscaled += [shape.height * FACTORS.height, shape.width * FACTORS.width]
    assert [channels, *upscaled] == entry["upscaled"]


@pytest.mark.parametrize("entry", entries("common/helpers.json", "snap_frames"))
def test_frames_are_cut_to_whole_latent_frames(entry):
    shape = VideoLatentShape.from_pixels(
        frames=entry["frames"], height=32, width=32, channels=1, factors=FACTORS
    )
    assert shape.pixel_frames(FACTORS) == entry["snapped"]


@pytest.mark.parametrize("entry", entries(SHAPES, "audio_frames_from_duration"))
def test_audio_frames_of_a_duration(entry):
    rates = {"frames": 16000 / 160 / 4, "frames_sr48k_hop512": 48000 / 512 / 4}
    for name, rate in rates.items():
        shape = AudioLatentShape.from_duration(
            entry["seconds"], channels=1, bins=1, latents_per_second=rate
        )
        assert shape.frames == entry[name]


@pytest.mark.parametrize("entry", entries(SHAPES, "audio_from_video"))
def test_audio_frames_of_a_video(entry):
    duration_s = entry["pixel_frames"] / entry["fps"]
    shape = AudioLatentShape.from_duration(duration_s, channels=1, bins=1)
    assert shape.frames == entry["audio_latent_frames"]
