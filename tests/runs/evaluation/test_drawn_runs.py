"""Evaluations of runs whose clips were drawn: what is judged and reported, without any cluster."""

import json

import pytest
from typer.testing import CliRunner

from rayreel.cli import app
from rayreel.data.ledger import FailureRecord, Ledger
from rayreel.data.storage import Storage
from rayreel.runs import evaluate as evaluating
from rayreel.runs.evaluation.judged import read_lines
from tests.runs.evaluation.drawn import draw_run, entry, write_spec

ONE = {"type": "rendered", "name": "one", "clips": 3, "things": 1}
GIVEN = {
    **ONE,
    "name": "given",
    "clips": 2,
    "request": {"steps": 3},
    "given": ["first_frame", "last_frame"],
}


def call(path, output, *options):
    return CliRunner().invoke(app, ["eval", str(path), "-o", str(output), *options])


def summary(output):
    return {
        one["name"]: one for one in json.loads((output / "evaluation.json").read_text())["suites"]
    }


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run of drawn clips, its spec, and what the command said."""
    folder = tmp_path_factory.mktemp("evaluated")
    path, output = write_spec(folder, ONE, GIVEN), folder / "run"
    draw_run(path, output)
    return path, output, call(path, output)


def test_drawn_clips_are_right_in_everything(evaluated):
    _, output, said = evaluated
    assert said.exit_code == 0, said.output
    found = summary(output)
    assert found["one"]["judged"] == 3
    assert found["given"]["attributes"].keys() >= {"right", "motion", "pitch", "first_frame"}
    for suite in found.values():
        assert {one["share"] for one in suite["attributes"].values()} == {1.0}
    low, high = (found["one"]["attributes"]["right"][end] for end in ("low", "high"))
    assert (low, high) == (pytest.approx(0.4385, abs=1e-4), 1)


def test_the_command_prints_the_tables_that_it_leaves(evaluated):
    _, output, said = evaluated
    table = (output / "evaluation.md").read_text()
    assert table in said.stdout
    assert "| one | 3 | 100 % (44-100) |" in table
    assert "5 clips of 2 suites, 0 failed (5 judged in" in said.stdout
    assert said.stdout.splitlines()[-1] == str(output / "evaluation.html")
    assert "judging: 100%" in said.stderr


def test_a_line_of_each_clip_says_what_was_asked_and_seen(evaluated):
    _, output, _ = evaluated
    lines = [json.loads(line) for line in (output / "evaluation.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [
        *("one-0000", "one-0001", "one-0002"),
        *("given-0000", "given-0001"),
    ]
    for line in lines:
        (thing,), (seen,) = line["asked"]["things"], line["seen"]
        assert seen["things"][0]["motion"] == thing["motion"]
        assert (output / line["path"]).exists()


def test_a_second_call_renders_and_judges_nothing(evaluated):
    path, output, _ = evaluated
    before = (output / "evaluation.jsonl").read_text()
    said = call(path, output)
    assert (said.exit_code, said.stderr) == (0, "")
    assert "nothing was left" in said.stdout
    assert "(nothing new)" in said.stdout
    assert (output / "evaluation.jsonl").read_text() == before


def test_a_new_suite_is_judged_and_the_others_are_not(evaluated):
    path, output, _ = evaluated
    wider = write_spec(output, ONE, {**ONE, "name": "again"}, GIVEN)
    said = call(wider, output)
    assert "8 clips of 3 suites, 0 failed (3 judged in" in said.stdout
    call(path, output)


def test_other_bounds_judge_again_and_a_quick_look_takes_few(evaluated):
    path, output, _ = evaluated
    said = call(path, output, "--set", "bounds.synchrony_s=0", "--clips", "2")
    assert "4 clips of 2 suites, 0 failed (4 judged in" in said.stdout
    call(path, output)


def test_clips_are_judged_side_by_side_as_they_are_one_by_one(evaluated, monkeypatch):
    path, output, _ = evaluated
    before = read_lines(Storage(output))
    monkeypatch.setattr(evaluating, "_CLIPS_PER_PROCESS", 1)
    (output / "evaluation.jsonl").unlink()
    assert call(path, output).exit_code == 0
    assert read_lines(Storage(output)) == before


def test_clips_that_could_not_be_made_or_read_are_no_clips(tmp_path):
    path, output = write_spec(tmp_path, {**ONE, "clips": 4}), tmp_path / "run"
    draw_run(path, output)
    ledger = Ledger(Storage(output))
    first, second, *_ = sorted(ledger.read())
    (output / f"videos/{second}.mp4").write_bytes(b"nothing")
    (output / f"ledger/one-{first}.jsonl").unlink()
    error = FailureRecord(stage="stage1", error="MediaError", message="out of <paint>")
    ledger.append(
        entry(first, "").model_copy(
            update={"status": "failed", "output": None, "sha256": None, "num_bytes": None}
            | {"error": error}
        )
    )
    said = call(path, output)
    assert said.exit_code == 1
    found = summary(output)["one"]
    assert (found["clips"], found["judged"], found["failed"]) == (4, 2, 2)
    assert found["attributes"]["right"]["of"] == 2
    page = (output / "evaluation.html").read_text()
    assert "out of &lt;paint&gt;" in page
    assert "2 could not be made or read" in page


def test_a_damaged_file_of_verdicts_is_named(evaluated, tmp_path):
    path, output, _ = evaluated
    lines = output / "evaluation.jsonl"
    whole = lines.read_text()
    lines.write_text(f"{whole}nonsense\n")
    said = call(path, output)
    assert said.exit_code == 2
    assert f"line 6 of {lines} is damaged" in said.stderr
    lines.write_text(whole)


def test_sizes_that_the_model_does_not_have_are_refused_before_anything_starts(tmp_path):
    suite = {"type": "reconstructed", "name": "again", "clips": 1}
    said = call(write_spec(tmp_path, {**suite, "width": 100}), tmp_path / "run")
    assert said.exit_code == 2
    assert "suite again: field 'width': 100 is not a multiple of 32" in said.stderr
    rendered = {**ONE, "request": {"num_frames": 12}}
    said = call(write_spec(tmp_path, rendered), tmp_path / "run")
    assert said.exit_code == 2
    assert "row 1: field 'num_frames'" in said.stderr
