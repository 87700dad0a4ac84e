"""What is planned before a job, and what is left of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.config.jobs import StageSpec
from rayreel.data.ledger import FailureRecord, Ledger
from rayreel.data.storage import Storage
from rayreel.requests.spec import read_render_spec
from rayreel.runs.left import Left
from rayreel.runs.opened import plan
from rayreel.runs.passes import in_waves
from rayreel.runs.waves import distinct
from tests.data.test_ledger import done, failed
from tests.runs.conftest import row, write_job

SHAPES: list[dict[str, Any]] = [{"pipeline": "one_stage", "steps": 1}, {"pipeline": "distilled"}]
ROWS = [row(f"clip{n}", seed=n, **SHAPES[n % 2]) for n in range(6)]


def command(*arguments: str | Path):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def planned(ray_cluster, tmp_path_factory):
    """A plan of six rows of two shapes, then the job: what both said."""
    job = write_job(tmp_path_factory.mktemp("planned"), ROWS)
    said = command("plan", job.spec, "-o", job.output)
    measured = job.entries
    return job, said, measured, job.render()


@pytest.mark.ray
def test_a_plan_tells_actors_time_and_storage(planned):
    _, said, _, _ = planned
    assert said.exit_code == 0, said.stderr
    for word in ("6 rows", "stage1", "decode", "clips", "GPU"):
        assert word in said.stdout
    assert "unknown" not in said.stdout, "everything was measured"


@pytest.mark.ray
def test_a_plan_renders_a_clip_of_each_shape_and_the_job_goes_on_from_there(planned):
    job, _, measured, rendered = planned
    assert len(measured) == 2
    assert "6 done, 0 failed (4 in" in rendered.stdout
    assert sorted(job.lines) == sorted(job.entries), "one line per clip"


@pytest.mark.ray
def test_a_run_says_what_was_planned_and_what_came_of_it(planned):
    job, _, _, _ = planned
    page = (job.output / "report.html").read_text()
    assert "planned" in page
    assert json.loads((job.output / "plan.json").read_text())["left"] == 4
    costs = json.loads((job.output / "costs.json").read_text())
    assert {cost["stage"] for cost in costs["stages"]} == {"text", "stage1", "stage2", "decode"}


@pytest.mark.ray
def test_a_list_with_nothing_left_needs_no_plan(planned):
    job, _, _, _ = planned
    assert "nothing is left to render" in command("plan", job.spec, "-o", job.output).stdout


@pytest.mark.ray
def test_texts_of_a_shared_store_are_encoded_once(planned, tmp_path):
    job, _, _, _ = planned
    other = [{**one, "seed": 100 + n} for n, one in enumerate(ROWS)]
    warm = write_job(tmp_path, other, store=str(job.output))
    assert warm.render().exit_code == 0
    assert all("text" not in entry.seconds for entry in warm.entries.values())
    assert any("text" in entry.seconds for entry in job.entries.values())


@pytest.mark.ray
def test_placement_and_actors_are_chosen_where_they_are_left_open(planned, tmp_path):
    job, _, _, _ = planned
    workers = {"max_replicas": 2}
    again = write_job(tmp_path, ROWS[:2], placement="auto", store=str(job.output), workers=workers)
    said = command("--log-level", "INFO", "render", again.spec, "-o", again.output)
    assert said.exit_code == 0
    reason = json.loads((again.output / "plan.json").read_text())["reason"]
    assert f": {reason}" in said.stderr
    run = json.loads((again.output / "run.json").read_text())
    assert all(pool["replicas"] <= 2 for pool in run["pools"])


@pytest.fixture
def left(tmp_path):
    """What is left of six rows after some lines of the ledger."""
    job = write_job(tmp_path, ROWS)
    _, rows = plan(read_render_spec(str(job.spec), [], str(job.output)))
    ids = [item_id.decode() for item_id in rows.item_ids]

    def left(*lines, **options) -> list[str]:
        ledger = Ledger(Storage(job.output))
        for line in lines:
            ledger.append(line)
        options = {"retry": "none", "attempts": 3, **options}
        found = Left(rows, ledger.table(), **options)
        assert found.clips == len(list(found.rows()))
        return [one.name for one in found.rows()]

    return SimpleNamespace(of=left, ids=ids)


def lost(item_id: str, attempt: int):
    error = FailureRecord(stage="decode", error="WorkerLost", message="gone", retryable=True)
    return failed(item_id, attempt).model_copy(update={"error": error})


def test_what_is_finished_or_failed_is_not_left(left):
    assert left.of(done(left.ids[0]), failed(left.ids[1])) == ["clip2", "clip3", "clip4", "clip5"]


def test_only_what_failed_is_left_for_another_try(left):
    assert left.of(done(left.ids[0]), failed(left.ids[1]), retry="failed") == ["clip1"]


def test_a_try_that_was_to_come_when_the_driver_died_is_left(left):
    lines = [*map(done, left.ids[2:]), lost(left.ids[0], 2), lost(left.ids[1], 3)]
    assert left.of(*lines) == ["clip0"]


def test_waves_grow_and_hold_each_clip_once():
    rows = [SimpleNamespace(item_id=str(n // 2)) for n in range(2 * 5000)]
    waves = list(in_waves(distinct(rows), 1000))  # type: ignore[arg-type]
    assert [len(wave) for wave in waves] == [64, 256, 1000, 1000, 1000, 1000, 680]
    assert len({one.item_id for wave in waves for one in wave}) == 5000


def test_limits_of_a_pool_must_be_in_order():
    with pytest.raises(ValueError, match="max_replicas=1 is less than replicas=2"):
        StageSpec(replicas=2, max_replicas=1)
