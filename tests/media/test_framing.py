"""Frames at the size of a bucket: covering it, cropped, in the model's range."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rayreel.media.framing import (
    center_crop,
    covering_size,
    crop_surplus,
    resize_and_crop,
    resize_each,
)

SIDES = st.integers(1, 4000)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_resized_picture_covers_the_bucket_and_fits_one_side(width, height, bucket_w, bucket_h):
    covering = covering_size(width, height, bucket_w, bucket_h)
    rows, columns = crop_surplus(width, height, bucket_w, bucket_h)
    assert covering == (bucket_w + columns, bucket_h + rows)
    assert min(rows, columns) == 0 <= max(rows, columns)


@pytest.mark.parametrize(
    ("source", "bucket", "resized", "crop"),
    [
        ((1920, 1080), (768, 448), (796, 448), (0, 14)),
        ((1080, 1920), (512, 768), (512, 910), (71, 0)),
        ((1280, 720), (960, 544), (967, 544), (0, 3)),
        ((640, 480), (768, 448), (768, 576), (64, 0)),
    ],
)
def test_sizes_are_rounded_down_and_crops_are_in_the_middle(source, bucket, resized, crop):
    assert covering_size(*source, *bucket) == resized
    assert center_crop(*source, *bucket) == crop


def test_frames_come_out_in_the_models_layout_and_range():
    frames = torch.randint(0, 256, (3, 40, 60, 3), dtype=torch.uint8)
    frames[0], frames[1] = 0, 255
    pixels = resize_and_crop(frames, height=32, width=32, crop=(0, 8))
    assert (pixels.shape, pixels.dtype) == ((3, 3, 32, 32), torch.float32)
    assert pixels[:, 0].unique().tolist() == pytest.approx([-1])
    assert pixels[:, 1].numpy() == pytest.approx(1, abs=1e-6)
    assert pixels.abs().max() <= 1


@pytest.mark.parametrize("size", [(40, 60), (33, 91), (200, 51), (32, 64)])
def test_pixels_are_those_of_bicubic_resizing_with_anti_aliasing(size):
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    width, height = covering_size(size[1], size[0], 64, 32)
    planes = frames.movedim(-1, 1).float()
    whole = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    crop = (height - 32, width - 64)
    expected = whole[..., crop[0] :, crop[1] :].movedim(1, 0).clamp(0, 255) / 127.5 - 1
    torch.testing.assert_close(resize_and_crop(frames, height=32, width=64, crop=crop), expected)


def test_a_frame_does_not_depend_on_those_beside_it():
    frames = torch.randint(0, 256, (5, 50, 37, 3), dtype=torch.uint8)
    together = resize_and_crop(frames, height=32, width=64, crop=(9, 0))
    singles = [resize_and_crop(frame[None], height=32, width=64, crop=(9, 0)) for frame in frames]
    assert torch.equal(together, torch.cat(singles, dim=1))
    each = resize_each(iter(frames), height=32, width=64, crop=(9, 0))
    assert torch.equal(together, torch.stack(list(each), dim=1))


def test_crops_are_parts_of_one_picture():
    frames = torch.randint(0, 256, (1, 32, 80, 3), dtype=torch.uint8)
    wide = resize_and_crop(frames, height=32, width=80, crop=(0, 0))
    for left in (0, 7, 48):
        part = resize_and_crop(frames, height=32, width=32, crop=(0, left))
        assert torch.equal(part, wide[..., left : left + 32])


def test_a_picture_of_the_right_size_keeps_its_pixels():
    frames = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8)
    pixels = resize_and_crop(frames, height=32, width=64, crop=(0, 0))
    assert torch.equal(((pixels + 1) * 127.5).round().byte(), frames.movedim(-1, 0))


@pytest.mark.parametrize("crop", [(-1, 0), (1, 0), (0, 49)])
def test_a_crop_outside_is_a_mistake_of_the_caller(crop):
    with pytest.raises(ValueError, match="up to 0 rows and 48 columns"):
        resize_and_crop(torch.zeros(1, 32, 80, 3), height=32, width=32, crop=crop)
