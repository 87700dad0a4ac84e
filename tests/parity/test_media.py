"""Resizing for the model against the reference's numbers."""

import pytest

from rayreel.media.image import fit, fit_long_side
from tests.parity.vectors import cases

FILE = "common/data_ops.safetensors"


@pytest.mark.parametrize("case", [*cases(FILE, "img_*"), *cases(FILE, "vid_*")])
def test_fit_covers_and_crops_like_the_reference(case):
    frames = case.inputs["x"]
    ours = fit(frames, case.options["height"], case.options["width"])
    batched = ours if frames.dim() == 4 else ours[None]
    case.assert_close(batched.movedim(1, 0)[None], "center_crop")


@pytest.mark.parametrize("case", cases(FILE, "long_side_*"))
def test_fit_long_side_scales_like_the_reference(case):
    case.assert_close(fit_long_side(case.inputs["x"], case.options["long_side"]), "y")
