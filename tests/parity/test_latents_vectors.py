"""Masks at the size of latents against the published tools' numbers."""

import pytest

from rayreel.pipelines.encoding import in_latent_frames
from tests.parity.vectors import cases


@pytest.mark.parametrize("case", cases("common/data_ops.safetensors", "mask_*"))
def test_masks_are_brought_to_the_size_of_latents(case):
    mask = in_latent_frames(case.inputs["block_means"], 8)
    assert list(mask.shape) == case.options["latent_shape"]
    case.assert_close(mask, "mask")
