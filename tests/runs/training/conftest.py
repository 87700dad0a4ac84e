"""Eight clips that are learned by heart."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pytest

from rayreel.config.buckets import Bucket
from rayreel.runs.bench.clip_files import write_clips
from tests.runs.encoding.conftest import write_job as write_encode_job
from tests.runs.training.jobs import write_job
from tests.training.runs import losses

SIZE = Bucket(width=64, height=64, num_frames=9)
CLIPS = 8


@dataclass(frozen=True)
class Learned:
    """A run that has learned eight clips.

    Attributes:
        weights: What it has saved.
        first: Loss of its first step.
        last: Of its last twenty.
    """

    weights: Path
    first: float
    last: float


@pytest.fixture(scope="session")
def eight_clips(tmp_path_factory) -> Path:
    """Eight clips with sound and captions, encoded; each is its own reference."""
    folder = tmp_path_factory.mktemp("clips")
    values = {
        "dataset": str(write_clips(folder / "clips", [SIZE], CLIPS)),
        "buckets": str(SIZE),
        "columns": {"reference_video": "video"},
    }
    job = write_encode_job(folder, values)
    assert job.encode().done == CLIPS
    return job.output


def learned(folder: Path, dataset: Path, **values) -> Learned:
    steps, rate = values.pop("steps"), values.pop("rate")
    job = write_job(
        folder,
        dataset,
        folder / "run",
        **values,
        optimization={
            "steps": steps,
            "batch_size": CLIPS,
            "learning_rate": rate,
            "schedule": "cosine",
            "warmup": 5,
            "weight_decay": 0,
        },
        checkpoints={"interval": None, "precision": "float32"},
    )
    result = job.run()
    assert result.exit_code == 0, result.stderr
    found = losses(job.lines)
    return Learned(Path(result.stdout.splitlines()[1]), found[0], mean(found[-20:]))
