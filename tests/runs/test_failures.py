"""What fails costs itself, can be tried again, and stops a run where it is everywhere."""

import json

import pytest

from rayreel.requests.spec import read_render_spec
from rayreel.runs.opened import plan
from tests.runs.conftest import Job, row, write_images, write_job

pytestmark = pytest.mark.ray

# More than the first wave holds.
ROWS = 80
# As little as a clip can be.
QUICK = {"pipeline": "one_stage", "steps": 1, "audio": False, "width": 64, "height": 64}
POISONED = [{"path": "damaged.png"}]


def many(folder, rows, poisoned) -> Job:
    """So many rows, of which some have a damaged image; all have one prompt."""
    write_images(folder)
    return write_job(
        folder,
        [
            {"id": f"row{n}", "prompt": "Rain.", "seed": n, **QUICK, "num_frames": 9}
            | ({"images": POISONED} if n in poisoned else {})
            for n in range(rows)
        ],
    )


def test_one_poisoned_row_among_many_costs_one_row(ray_cluster, tmp_path):
    job = many(tmp_path, 24, {21})
    said = job.render("--error-budget", "5%")
    assert said.exit_code == 1, said.stderr
    assert "24 clips: 23 done, 1 failed" in said.stdout
    assert len(job.files) == 23
    (failed,) = (tmp_path / "run" / "failed.jsonl").read_text().splitlines()
    assert json.loads(failed)["id"] == "row21"


def test_ten_percent_stop_at_a_budget_of_five(ray_cluster, tmp_path):
    job = many(tmp_path, ROWS, {*range(3, ROWS, 10)})
    said = job.render("--error-budget", "5%")
    assert said.exit_code == 3
    assert "clips failed, more than 5.0% of" in said.stdout
    assert "x MediaError in stage1: " in said.stdout
    entries = job.entries
    done = {f"{item_id}.mp4" for item_id, entry in entries.items() if entry.status == "done"}
    assert 0 < len(entries) < ROWS
    assert done <= job.files.keys(), "what was finished is kept"
    assert sum(result["status"] == "left" for result in job.results.values()) > 0


def test_what_failed_is_tried_again_and_nothing_else(ray_cluster, tmp_path):
    job = write_job(tmp_path, [row("fox", seed=1, **QUICK), row("owl", seed=2, **QUICK)])
    _, rows = plan(read_render_spec(str(job.spec), [], str(job.output)))
    owl = next(one.item_id for one in rows if one.name == "owl")
    in_the_way = job.output / "videos" / f"{owl}.mp4"
    in_the_way.mkdir(parents=True)
    assert job.render().exit_code == 1
    assert job.entries[owl].error is not None
    assert "1 failed (nothing was left)" in job.render().stdout, "a plain rerun leaves it alone"
    in_the_way.rmdir()
    again = job.render("--retry", "failed")
    assert again.exit_code == 0
    assert "2 done, 0 failed (1 in" in again.stdout
    assert job.entries[owl].attempt == 2
    assert (job.output / "failed.jsonl").exists() is False
