"""`rayreel train`, in this process and on the run-wide cluster."""

import re
from pathlib import Path

import pytest

from rayreel.media.container import probe
from tests.runs.training.jobs import write_job
from tests.training.datasets import tiny_dataset
from tests.training.runs import losses

VALIDATION = {
    "rows": ["A fox."],
    "defaults": {"width": 64, "height": 64, "num_frames": 9, "steps": 1, "audio": False},
    "interval": 6,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def done(dataset, tmp_path_factory):
    """A job that has trained, and what the command said."""
    folder = tmp_path_factory.mktemp("done")
    job = write_job(folder, dataset, folder / "out", validation=VALIDATION)
    return job, job.run()


def test_a_run_leaves_weights_checkpoints_clips_and_a_page(done):
    job, result = done
    assert result.exit_code == 0, result.stderr
    told, weights, page = result.stdout.splitlines()
    assert told.startswith("6 steps, 6 of them now, loss ")
    assert Path(weights).stat().st_size > 1000
    assert "<html" in Path(page).read_text("utf-8")
    assert sorted(job.clips) == ["step-00000000", "step-00000006"]
    for (clip,) in job.clips.values():
        assert probe(str(Path(job.output, clip["file"]))).num_frames == 9


def test_a_run_that_is_done_does_nothing_and_goes_on_with_more_steps(done):
    job, _ = done
    before = job.lines
    assert job.run().stdout.startswith("6 steps: nothing new")
    longer = job.run("--set", "optimization.steps=7")
    assert longer.stdout.startswith("7 steps, 1 of them now")
    assert job.lines[:6] == before
    assert [line["step"] for line in job.lines] == [*range(1, 8)]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lora.rank=8", 'lora was {"rank": 32.* and is {"rank": 8'),
        ("optimization.learning_rate=0.1", "optimization was .*take another output"),
        ("seed=3", "seed was 0, and is 3"),
    ],
)
def test_a_run_that_would_learn_something_else_is_refused(done, setting, said):
    job, _ = done
    result = job.run("--set", setting)
    assert result.exit_code == 2
    assert re.search(said, result.stderr)


def test_a_dry_run_checks_everything_and_leaves_nothing(dataset, tmp_path):
    job = write_job(tmp_path, dataset, tmp_path / "out", validation=VALIDATION)
    result = job.run("--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("8 samples of 1 shapes")
    assert not Path(job.output).exists()
    wrong = job.run("--dry-run", "--set", "validation.defaults.width=65")
    assert wrong.exit_code == 2
    assert "row-1" in wrong.stderr


@pytest.mark.ray
def test_workers_on_a_cluster_learn_the_same_and_clips_are_made_beside_them(
    ray_cluster, done, tmp_path
):
    alone, _ = done
    text = alone.spec.read_text("utf-8") + "workers: {num_workers: 2, cpus: 1}\n"
    job = write_job(tmp_path, tmp_path, tmp_path / "out")
    job.spec.write_text(text)
    result = job.run()
    assert result.exit_code == 0, result.stderr
    assert losses(job.lines) == pytest.approx(losses(alone.lines[:6]), rel=1e-3)
    assert sorted(job.clips) == ["step-00000000", "step-00000006"]
    assert all(clip["error"] is None for (clip,) in job.clips.values())


@pytest.mark.ray
def test_more_workers_than_fit_are_refused_with_the_number_that_does(
    ray_cluster, dataset, tmp_path
):
    job = write_job(tmp_path, dataset, tmp_path / "out")
    result = job.run("--set", "workers.num_workers=900")
    assert result.exit_code == 2
    assert "900 workers" in result.stderr
    assert "set workers.num_workers to" in result.stderr
