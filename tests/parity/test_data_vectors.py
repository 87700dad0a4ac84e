"""Golden vectors of dataset preparation: framing of pictures, and which frames are taken."""

import pytest

from rayreel.media.frames import frame_indices
from rayreel.media.framing import center_crop, covering_size, resize_and_crop
from tests.parity.vectors import cases, entries

BUCKETS = "common/data_buckets.json"


@pytest.mark.parametrize("entry", entries(BUCKETS, "resize_crop_sizes"))
def test_sizes_and_crops_are_those_of_the_trainer(entry):
    sizes = (entry["src_w"], entry["src_h"], entry["target_w"], entry["target_h"])
    height, width = entry["training_bicubic"]["resize_to_h_w"]
    assert covering_size(*sizes) == (width, height)
    top, left, *kept = entry["training_bicubic"]["crop_top_left_h_w"]
    assert center_crop(*sizes) == (top, left)
    assert kept == [entry["target_h"], entry["target_w"]]


@pytest.mark.parametrize("case", cases("common/data_ops.safetensors", "train_*"))
def test_pixels_are_those_of_the_trainer(case):
    frames = case.inputs["x"].permute(0, 2, 3, 1) * 255
    height, width = case.options["height"], case.options["width"]
    crop = center_crop(frames.shape[2], frames.shape[1], width, height)
    ours = resize_and_crop(frames, height=height, width=width, crop=crop)
    case.assert_close((ours.movedim(1, 0) + 1) / 2, case.out["y"].clamp(0, 1))


@pytest.mark.parametrize("entry", entries(BUCKETS, "temporal_subsample"))
def test_the_frames_that_are_taken_are_those_of_the_trainer(entry):
    count = 1 + (entry["num_frames"] - 1) // entry["factor"]
    assert frame_indices(count, entry["factor"]) == entry["indices"]
