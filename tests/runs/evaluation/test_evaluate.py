"""Evaluations of the tiny model from end to end: it has learnt nothing, and so they say."""

import json

import pytest
from typer.testing import CliRunner

from rayreel.cli import app
from tests.runs.evaluation.drawn import write_spec

pytestmark = pytest.mark.ray

REQUEST = {"width": 64, "height": 64, "num_frames": 9, "steps": 2}
SUITES = (
    {"type": "rendered", "name": "one", "clips": 2, "things": 1, "request": REQUEST},
    {
        "type": "rendered",
        "name": "given",
        "clips": 1,
        "given": ["first_frame"],
        "request": {**REQUEST, "pipeline": "one_stage"},
    },
)


def call(path, output, *options):
    return CliRunner().invoke(app, ["eval", str(path), "-o", str(output), *options])


@pytest.fixture(scope="module")
def evaluated(ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    path, output = write_spec(folder, *SUITES), folder / "run"
    return path, output, call(path, output)


def test_nothing_is_right(evaluated):
    _, output, said = evaluated
    assert said.exit_code == 0, said.output
    one, given = json.loads((output / "evaluation.json").read_text())["suites"]
    assert (one["judged"], given["judged"]) == (2, 1)
    for suite in (one, given):
        assert suite["attributes"]["right"]["right"] == 0
    assert given["attributes"]["first_frame"]["of"] == 1
    assert "| one | 2 | 0 % (0-66) |" in said.stdout


def test_the_render_job_is_left_to_run_alone(evaluated):
    _, output, _ = evaluated
    assert "3 rows, 3 clips" in (output / "report.html").read_text()
    again = CliRunner().invoke(app, ["render", str(output / "render.yaml"), "--dry-run"])
    assert again.stdout == "3 rows, 3 clips: all of them are valid\n"


def test_a_second_call_renders_and_judges_what_is_new(evaluated):
    path, output, _ = evaluated
    assert "nothing was left" in call(path, output).stdout
    wider = write_spec(output, {**SUITES[0], "clips": 3})
    said = call(wider, output)
    assert "3 rows, 3 clips: 3 done, 0 failed (1 in" in said.stdout
    assert "(1 judged in" in said.stdout
