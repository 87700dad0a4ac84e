"""Sampling defaults by generation."""

import pytest

from rayreel.config.presets import sampling_defaults


@pytest.mark.parametrize(
    ("version", "steps", "block", "crf"),
    [
        ((), 40, 29, 33),
        ((2,), 40, 29, 33),
        ((2, 0, 0), 40, 29, 33),
        ((2, 3), 30, 28, 33),
        ((2, 3, 1), 30, 28, 33),
        ((2, 4), 30, 28, 18),
        ((2, 5, 0), 30, 28, 18),
        ((3,), 30, 28, 18),
    ],
)
def test_defaults_follow_the_newest_row_that_is_not_above_the_version(version, steps, block, crf):
    row = sampling_defaults(version)
    assert (row.steps, row.stg_block, row.image_crf) == (steps, block, crf)
