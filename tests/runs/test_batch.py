"""The files of a batch and of single requests."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import RenderSpec
from rayreel.config.request import RenderRequest
from rayreel.media.video import read_clip
from rayreel.runs.pools import choose_devices, render_pools
from rayreel.stages.base import RenderItem, Result, run_stage
from tests.pipelines.small import resolved
from tests.runs.test_pools import LAPTOP


def test_a_batch_of_four_makes_the_clips_of_four_alone(tmp_path):
    together = _frames(tmp_path / "together", batch_size=4)
    alone = _frames(tmp_path / "alone", batch_size=1)
    difference = (together.int() - alone.int()).abs()
    # Larger matrix products round differently: one level of 255 in few pixels, for which YUV can
    # make three. Files of less than lossless quality can differ by more.
    assert difference.max() <= 4
    assert difference.float().mean() < 1e-3
    assert (alone[0].int() - alone[1].int()).abs().float().mean() > 1, "the four differ"


def _frames(output: Path, batch_size: int) -> Tensor:
    """Frames of the files of four clips, made by the stages of a job in this process."""
    request = RenderRequest(prompt="Rain.", width=64, height=64, num_frames=9, steps=2, crf=0)
    request = resolved(request, ModelFiles(locate_model("tiny")))
    items = [
        RenderItem(item_id=f"{seed}", request=request.model_copy(update={"seed": seed}))
        for seed in range(4)
    ]
    spec = RenderSpec(prompts="unread", output=str(output))
    (pool,) = render_pools(spec, choose_devices(spec, [request], LAPTOP), LAPTOP)
    for stage in pool.stages:
        stage.setup()
    for start in range(0, len(items), batch_size):
        results: Sequence[Result] = items[start : start + batch_size]
        for stage in pool.stages:
            results = run_stage(stage, results)
    return torch.stack([read_clip(output / f"videos/{i.item_id}.mp4").frames for i in items])
