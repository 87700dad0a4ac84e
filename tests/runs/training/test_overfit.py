"""From clips to clips: what was encoded is learned by heart, and the render job shows it."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from rayreel.checkpoints.tiny import locate_model
from rayreel.cli import app
from rayreel.data.reader import LatentDataset
from tests.runs.training.conftest import CLIPS, SIZE, learned

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# As it was trained: no push away from anything.
PLAIN = {"cfg_scale": 1, "stg_scale": 0, "modality_scale": 1}


def rendered(folder: Path, captions: list[str], model) -> list[Tensor]:
    """Video latents of clips that the render job has made of captions."""
    rows = [
        {
            "prompt": caption,
            "pipeline": "one_stage",
            "width": SIZE.width,
            "height": SIZE.height,
            "num_frames": SIZE.num_frames,
            "fps": 25,
            "steps": 12,
            "seed": 1,
            "audio": False,
            "video_guidance": PLAIN,
        }
        for caption in captions
    ]
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    spec = {"prompts": "rows.jsonl", "model": model, "keep_latents": True}
    (folder / "render.yaml").write_text(yaml.safe_dump(spec))
    command = ["render", str(folder / "render.yaml"), "-o", str(folder / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    ids = pq.read_table(folder / "out" / "results.parquet")["item_id"].to_pylist()
    files = [next((folder / "out" / "latents").glob(f"{one}*")) for one in ids]
    return [load_file(file)["video"].float() for file in files]


def test_all_weights_learn_clips_by_heart_and_the_render_job_shows_them(
    ray_cluster, eight_clips, tmp_path
):
    run = learned(
        tmp_path,
        eight_clips,
        steps=400,
        rate=2e-3,
        mode="full",
        strategy={"name": "text_to_video", "first_frame": 0, "audio": False},
        timesteps={"sampler": "uniform"},
    )
    assert run.first > 10 * run.last
    samples = [LatentDataset(eight_clips)[number] for number in range(CLIPS)]
    captions = [str(sample.info.caption) for sample in samples]
    base = locate_model("tiny").model_dump(exclude_unset=True)
    before = rendered(tmp_path / "before", captions[:1], base)
    after = rendered(tmp_path / "after", captions, {**base, "checkpoint": str(run.weights)})
    for number, latents in enumerate(after):
        own, *others = (distance(latents, samples[number - shift]) for shift in range(CLIPS))
        # The caption says which clip it is.
        assert own < 0.5 * min(others)
        assert own < 0.05 * distance(before[0], samples[0])


def distance(latents: Tensor, sample) -> float:
    """Mean squared error against the latents of a sample."""
    return float((latents.view_as(sample.video_latents) - sample.video_latents).square().mean())
