"""Adapters learn what they are shown."""

import pytest

from tests.runs.training.conftest import learned

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("targets", "strategy", "times"),
    [
        ("all", {"name": "text_to_video", "first_frame": 0}, 2),
        ("video", {"name": "ic_lora", "first_frame": 0}, 4),
    ],
    ids=["lora", "ic_lora"],
)
def test_adapters_learn_visibly(eight_clips, tmp_path, targets, strategy, times):
    lora = {"rank": 16, "targets": targets}
    run = learned(tmp_path, eight_clips, steps=80, rate=5e-3, lora=lora, strategy=strategy)
    assert run.first > times * run.last
