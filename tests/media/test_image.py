import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from rayreel.errors import MediaError
from rayreel.media.image import fit, load_image, recompress, to_model_input, write_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def red_left_blue_right(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (4, 0, 8, 4))
    return image.convert(mode)


def test_path_and_bytes_give_the_same_pixels(tmp_path):
    data = encoded(red_left_blue_right())
    (tmp_path / "a.png").write_bytes(data)
    pixels = load_image(tmp_path / "a.png")
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (4, 8, 3)
    assert pixels[0, 0].tolist() == list(RED)
    assert torch.equal(pixels, load_image(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_is_applied(orientation):
    upright = red_left_blue_right()
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = load_image(encoded(stored, exif=exif))
    assert torch.equal(pixels, load_image(encoded(upright)))


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_colours_survive_other_pixel_formats(mode):
    assert load_image(encoded(red_left_blue_right(mode)))[0, 7].tolist() == list(BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_becomes_three_equal_channels(mode):
    image = Image.new("L", (4, 4), 255).convert(mode)
    assert load_image(encoded(image)).eq(255).all()


def test_alpha_is_dropped_and_not_blended():
    transparent = Image.new("RGBA", (2, 2), (10, 200, 30, 0))
    assert load_image(encoded(transparent))[0, 0].tolist() == [10, 200, 30]


def test_translucent_palette_is_read():
    image = Image.new("P", (2, 2))
    image.putpalette([10, 200, 30, 1, 2, 3])
    assert load_image(encoded(image, transparency=b"\x40\x80"))[0, 0].tolist() == [10, 200, 30]


def test_16_bit_grey_is_scaled():
    image = Image.fromarray(np.full((2, 2), 0x8000, np.uint16))
    assert load_image(encoded(image)).eq(0x80).all()


def test_pixels_without_a_known_range_are_refused():
    image = Image.fromarray(np.ones((2, 2), np.float32))
    with pytest.raises(MediaError, match="no known range"):
        load_image(encoded(image, "TIFF"))


def test_cmyk_jpeg_is_read():
    pixels = load_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert pixels[4, 4, 0] > 200
    assert pixels[4, 4, 1:].max() < 60


def linear_light_profile() -> bytes:
    """The sRGB profile with straight tone curves: its middle grey is half of white's light."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag in (profile.find(b"rTRC"), profile.find(b"gTRC"), profile.find(b"bTRC")):
        offset = int.from_bytes(profile[tag + 4 : tag + 8], "big")
        # A parametric curve of type 0 with the exponent 1.0 (s15Fixed16).
        profile[offset : offset + 16] = b"para" + bytes(8) + (1 << 16).to_bytes(4, "big")
    return bytes(profile)


def test_colour_profile_is_converted_to_srgb():
    image = Image.new("RGB", (2, 2), (128, 128, 128))
    value = load_image(encoded(image, icc_profile=linear_light_profile()))[0, 0].float()
    # 128/255 of linear light is 188 on the sRGB curve.
    assert (value - 188).abs().max() <= 1


def test_profile_that_does_not_fit_is_ignored_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        pixels = load_image(encoded(red_left_blue_right(), icc_profile=b"not a profile"))
    assert pixels[0, 0].tolist() == list(RED)
    assert "colour profile ignored" in caplog.text


def test_missing_file_is_named(tmp_path):
    with pytest.raises(MediaError, match=r"missing\.png"):
        load_image(tmp_path / "missing.png")


def test_text_file_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(MediaError, match=r"a\.png"):
        load_image(tmp_path / "a.png")


# Pillow warns about damaged metadata and goes on.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_damaged_files_never_raise_anything_else(kind):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(MediaError):
        load_image(data[: len(data) // 2])
    for position in range(0, len(data), max(1, len(data) // 200)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            load_image(bytes(damaged))
        except MediaError:
            continue


def test_decompression_bomb_is_refused(monkeypatch):
    data = encoded(Image.new("RGB", (40, 40)))
    for limit in (1599, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(MediaError, match="large"):
            load_image(data)


def gradient(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).to(torch.uint8)


def test_recompression_loses_more_at_a_higher_crf():
    image = gradient(64, 96)
    errors = [
        (recompress(image, crf).float() - image.float()).abs().mean().item() for crf in (18, 33, 51)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[1] < 16


def test_recompression_cuts_odd_sizes_at_the_bottom_and_right():
    image = gradient(65, 97)
    assert torch.equal(recompress(image, 18), recompress(image[:64, :96], 18))


@pytest.mark.parametrize(("shape", "crf"), [((9, 7, 3), 0), ((1, 8, 3), 33), ((8, 1, 3), 33)])
def test_recompression_is_skipped(shape, crf):
    image = torch.full(shape, 77, dtype=torch.uint8)
    assert torch.equal(recompress(image, crf), image)


def test_recompression_refuses_an_unknown_crf():
    with pytest.raises(ValueError, match="crf=52"):
        recompress(gradient(8, 8), 52)


@pytest.mark.parametrize(
    ("source", "target"),
    [((1080, 1920), (512, 768)), ((1000, 1000), (512, 768)), ((333, 500), (512, 768))],
)
def test_fit_gives_the_asked_size(source, target):
    fitted = fit(torch.zeros(*source, 3, dtype=torch.uint8), *target)
    assert fitted.shape == (3, *target)
    assert fitted.dtype == torch.float32


def test_fit_keeps_the_centre():
    image = torch.zeros(20, 60, 3)
    image[:, 20:40] = 255
    assert fit(image, 20, 20).eq(255).all()


def test_model_input_spans_minus_one_to_one():
    pixels = torch.tensor([0.0, 255.0]).reshape(1, 1, 2).repeat(3, 1, 1)
    assert to_model_input(pixels).shape == (1, 3, 1, 1, 2)
    assert to_model_input(pixels)[0, 0, 0, 0].tolist() == [-1, 1]
    assert to_model_input(torch.zeros(9, 3, 4, 6)).shape == (1, 3, 9, 4, 6)


def test_a_directory_is_not_an_image(tmp_path: Path):
    with pytest.raises(MediaError, match=str(tmp_path)):
        load_image(tmp_path)


def test_a_written_frame_comes_back_and_is_always_the_same_file(tmp_path):
    frame = gradient(33, 47)
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, frame)
    assert torch.equal(load_image(str(tmp_path / "a.png")), frame)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_written_frame_is_png_whatever_its_name(tmp_path):
    write_image(tmp_path / "a.jpg", gradient(8, 8).flip(1))
    assert (tmp_path / "a.jpg").read_bytes().startswith(b"\x89PNG")
    assert torch.equal(load_image(tmp_path / "a.jpg"), gradient(8, 8).flip(1))


@pytest.mark.parametrize(
    "frame", [torch.zeros(8, 8, 3), gradient(8, 8)[None], gradient(8, 8)[..., :1], gradient(0, 8)]
)
def test_what_is_no_frame_is_not_written(tmp_path, frame):
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
        write_image(tmp_path / "a.png", frame)
    assert not (tmp_path / "a.png").exists()
