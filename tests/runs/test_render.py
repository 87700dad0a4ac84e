"""A render job from end to end: what it leaves behind, and what a rerun does."""

import json
import re
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest

from rayreel.cluster.pool import Pool
from rayreel.media.container import probe
from rayreel.media.video import read_clip
from rayreel.runs import render
from tests.cluster.fakes import Broken
from tests.runs.conftest import DEFAULTS, GOOD_ROWS, row, write_job

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("asked", GOOD_ROWS, ids=lambda asked: asked["id"])
def test_every_good_row_has_a_clip_that_plays(rendered, asked):
    job, _ = rendered
    asked = {"fps": 24, "audio": True, **DEFAULTS, **asked}
    path = job.output / job.results[asked["id"]]["output"]
    info = probe(path)
    assert (info.width, info.height) == (asked["width"], asked["height"])
    assert info.num_frames == asked["num_frames"]
    assert info.fps == pytest.approx(asked["fps"], rel=1e-6)
    assert info.duration_s == pytest.approx(asked["num_frames"] / asked["fps"], abs=1e-3)
    assert info.has_audio == asked["audio"]
    clip = read_clip(path)
    assert len(clip.frames) == asked["num_frames"]
    assert clip.frames.float().std() > 1
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "a clip plays while it downloads"


def test_a_damaged_image_costs_its_row_alone(rendered):
    job, said = rendered
    assert said.exit_code == 1
    assert "8 rows, 7 clips: 6 done, 1 failed" in said.stdout
    (failed,) = (entry for entry in job.entries.values() if entry.status == "failed")
    assert (failed.error.stage, failed.error.error, failed.seed) == ("stage1", "MediaError", 5)
    assert "damaged.png" in failed.error.message
    assert failed.error.message in said.stderr


def test_progress_counts_and_the_gallery_is_named(rendered):
    job, said = rendered
    assert re.search(r"7/7 .*clip.*done=6, failed=1, left=0", said.stderr)
    assert said.stdout.splitlines()[-1] == str(job.output / "index.html")


def test_equal_rows_share_one_clip(rendered):
    job, _ = rendered
    first, second = job.results["fox"], job.results["fox-again"]
    assert first["item_id"] == second["item_id"]
    assert first["output"] == second["output"]
    assert len(job.files) == 6


def test_results_have_a_line_per_row(rendered):
    job, _ = rendered
    table = pq.read_table(job.output / "results.parquet")
    assert table["row"].to_pylist() == list(range(1, 9))
    assert table["name"].to_pylist() == [asked["id"] for asked in GOOD_ROWS] + ["damaged"]
    types = {"seed": "int64", "seconds": "double", "audio": "bool", "output": "string"}
    assert {name: str(table.schema.field(name).type) for name in types} == types
    fox, damaged = job.results["fox"], job.results["damaged"]
    assert fox["num_bytes"] == (job.output / fox["output"]).stat().st_size
    assert fox["seconds"] > 0
    assert fox["error"] is None
    assert (damaged["status"], damaged["output"], damaged["error"]) == (
        "failed",
        None,
        "MediaError",
    )
    assert "damaged.png" in damaged["error_message"]


def test_ledger_times_every_stage_of_a_clip(rendered):
    job, _ = rendered
    entries, results = job.entries, job.results
    assert list(entries[results["fox"]["item_id"]].seconds) == [
        "text",
        "stage1",
        "stage2",
        "decode",
    ]
    assert sorted(job.lines) == sorted(entries), "one line per clip"


def test_run_file_says_what_ran_where(rendered):
    job, _ = rendered
    run = json.loads((job.output / "run.json").read_text())
    assert run["devices"]["stage1"].keys() == {"name", "dtype", "reason", "attention"}
    assert run["versions"].keys() >= {"python", "rayreel", "torch", "ray"}
    assert re.fullmatch("[0-9a-f]{16,}", run["weights"])
    assert run["spec"]["prompts"] == str(job.spec.parent / "list.jsonl")
    assert [pool["stages"] for pool in run["pools"]] == ["text", "stage1", "stage2", "decode"]


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.clips: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "video":
            self.clips.append(dict(attrs)["src"] or "")

    def handle_data(self, data):
        self.words += data


def test_gallery_plays_every_clip_and_says_what_failed(rendered):
    job, _ = rendered
    page = _Page((job.output / "index.html").read_text())
    assert sorted(page.clips) == sorted(f"videos/{name}" for name in job.files)
    assert "fox, fox-again" in page.words
    for result in job.results.values():
        assert result["prompt"] in page.words
    assert str(job.results["storm"]["seed"]) in page.words, "a seed that no row names"
    assert re.search(r"text \d+\.\d, stage1 \d+\.\d, stage2 \d+\.\d, decode \d+\.\d", page.words)
    assert job.results["damaged"]["error_message"] in page.words


def test_a_rerun_has_nothing_left_and_keeps_the_exit_code(rendered):
    job, _ = rendered
    files, lines = job.files, job.lines
    again = job.render()
    assert again.exit_code == 1
    assert "6 done, 1 failed (nothing was left)" in again.stdout
    assert (job.files, job.lines) == (files, lines)


def test_a_faulty_row_stops_the_job_before_it_starts(tmp_path):
    job = write_job(tmp_path, [row("fine"), row("long", num_frames=12)])
    said = job.render()
    assert said.exit_code == 2
    assert "row 2: field 'num_frames': 12" in said.stderr
    assert "nearest are 9 and 17" in said.stderr
    assert not job.output.exists()


def test_a_graph_that_does_not_fit_is_refused_by_the_name_of_its_stage(ray_cluster, tmp_path):
    job = write_job(tmp_path, GOOD_ROWS[:1], placement="split", stages={"stage1": {"cpus": 7}})
    said = job.render("--set", "stages.decode.cpus=4")
    assert said.exit_code == 2
    assert "the cluster cannot hold stage decode" in said.stderr
    assert not job.lines


def test_a_stage_that_cannot_load_its_weights_ends_the_job(ray_cluster, tmp_path, monkeypatch):
    pool = Pool(
        stages=(Broken("setup"),), replicas=1, max_replicas=1, batch_size=None, cpus=1, gpus=0
    )
    monkeypatch.setattr(render, "render_pools", lambda *_: [pool])
    said = write_job(tmp_path, GOOD_ROWS[:1]).render()
    assert said.exit_code == 2
    assert "weights.safetensors does not exist" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_failure_is_told_by_the_name_of_its_row(rendered):
    _, said = rendered
    assert "failed: damaged in stage1" in said.stderr
