"""What later runs do about changes and failures; stages run in this process."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from rayreel.runs.encoding.forecast import forecast
from tests.corpus import CUT_FRAME, too_short
from tests.media.samples import write_video
from tests.runs.encoding.conftest import EncodeJob, InProcess, write_job

ROWS = ("wide", "tall", "square", "landscape")
BUCKETS = "96x64x9;64x96x9"


def test_scenes_become_samples_of_their_own(corpus, tmp_path):
    (cut,) = (clip for clip in corpus[1] if clip.name == "hard_cut")
    row = {"id": "cut", "video": str(cut.path), "caption": "Two scenes."}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    scenes = {"dataset": "list.jsonl", "buckets": BUCKETS, "scenes": {"min_frames": 9}}
    job = write_job(tmp_path, scenes)
    assert job.encode().exit_code == 0
    first, second = job.dataset[0], job.dataset[1]
    assert [one.info.start_frame for one in (first, second)] == [0, CUT_FRAME]
    assert first.video_latents is not None
    assert second.video_latents is not None
    assert not torch.equal(first.video_latents, second.video_latents)
    assert list(job.results) == ["cut", "cut/1"]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> tuple[EncodeJob, Path]:
    """Four clips of one bucket, encoded once, and a copy of all that is there then."""
    folder = tmp_path_factory.mktemp("encoded") / "job"
    folder.mkdir()
    for number, name in enumerate(ROWS):
        torch.manual_seed(number)
        frames = torch.randint(0, 255, (9, 64, 96, 3), dtype=torch.uint8)
        write_video(folder / f"{name}.mp4", frames)
    write_rows(
        folder,
        [
            {"id": name, "video": f"{name}.mp4", "caption": f"The video shows {name} noise."}
            for name in ROWS
        ],
    )
    job = write_job(folder, {"dataset": "list.json", "buckets": BUCKETS})
    assert job.encode().exit_code == 0
    return job, Path(shutil.copytree(folder, folder.with_name("copy")))


@pytest.fixture
def small(encoded):
    """The four clips and what was made of them, at their old place and with their old times."""
    job, copy = encoded
    shutil.rmtree(job.spec.parent)
    shutil.copytree(copy, job.spec.parent)
    return job


def write_rows(folder, rows):
    (folder / "list.json").write_text(json.dumps(rows))


def read_rows(job):
    return json.loads((job.spec.parent / "list.json").read_text())


def kinds(job):
    return Counter(kind for kind, _ in job.records)


@pytest.mark.parametrize(
    ("setting", "made", "why"),
    [
        ("captions.trigger=mytok", {"text": 4}, "was never encoded: 'mytok wide noise.'"),
        ("buckets=64x64x9", {"video_latents": 4}, "another bucket (96x64x9; here 64x64x9)"),
        ("tiled=true", {"video_latents": 4}, "another tiled"),
        ("filters.black.max=0.5", {}, "4 as they were encoded, 0 not"),
        ("crop=random", {}, "4 as they were encoded, 0 not"),
        ("scenes.min_frames=5", {"scan": 4}, "wide: it was never looked at"),
    ],
)
def test_what_a_change_affects_is_encoded_again_and_nothing_else(small, setting, made, why):
    before, shards = kinds(small), small.shards
    assert why in small.explain(setting)
    assert small.encode(setting).exit_code == 0
    assert kinds(small) - before == Counter(made)
    assert small.explain(setting).endswith(" 0 not")
    # Back again, everything is still there.
    assert "nothing new" in str(small.encode())
    assert small.shards == shards


def test_a_file_that_changed_is_scanned_and_encoded_again(small):
    before = kinds(small)
    changed = small.spec.parent / "tall.mp4"
    write_video(changed, torch.zeros(9, 64, 96, 3, dtype=torch.uint8))
    assert "tall: it was never looked at, or has changed since" in small.explain()
    assert small.encode().exit_code == 0
    assert kinds(small) - before == Counter({"scan": 1, "video_latents": 1})


def test_one_clip_of_a_batch_that_cannot_be_read_costs_one_row(small):
    victim = small.spec.parent / "tall.mp4"
    when, whole = victim.stat().st_mtime_ns, victim.read_bytes()
    # As long as before, and of the same age: the scan that is known still counts.
    victim.write_bytes(bytes(len(whole)))
    os.utime(victim, ns=(when, when))
    assert small.encode("buckets=64x64x9").exit_code == 1
    found = small.results
    statuses = {name: row["status"] for name, row in found.items()}
    assert statuses == {**dict.fromkeys(ROWS, "done"), "tall": "failed"}
    assert found["tall"]["rule"] == "latents"
    assert "tall.mp4" in found["tall"]["reason"]
    assert len(small.dataset) == 3
    victim.write_bytes(whole)
    os.utime(victim, ns=(when, when))
    assert small.encode("buckets=64x64x9").exit_code == 1
    assert small.encode("buckets=64x64x9", retry="failed").exit_code == 0
    assert len(small.dataset) == 4


def test_a_shard_that_was_removed_is_written_again(small):
    shards = small.shards
    for file in (small.output / "shards").iterdir():
        file.unlink()
    assert small.encode().exit_code == 0
    assert small.shards == shards


def test_rows_that_are_the_same_are_one_sample(small):
    rows = read_rows(small)
    more = [{**rows[0], "id": "again"}, {**rows[0], "id": "other", "caption": "Other words."}]
    write_rows(small.spec.parent, [*rows, *more])
    assert small.encode().exit_code == 0
    found = small.results
    assert (found["again"]["status"], found["again"]["rule"]) == ("dropped", "duplicate")
    assert found["again"]["reason"] == "the same as wide"
    assert found["other"]["status"] == "done"
    assert len(small.dataset) == 5


def test_a_dry_run_tells_what_each_threshold_would_drop(small):
    records = small.records
    spec = small.read("filters={width: {min: 97}, black: {max: 0.5}}")
    told = forecast(spec, workers=InProcess)
    (line,) = (line for line in told.splitlines() if line.startswith("width"))
    assert line.split() == ["width", "at", "least", "97", "4", "4"]
    assert "black" in told
    assert small.records == records


def test_too_many_failures_stop_the_job_and_say_why(small):
    rows = [{"id": str(n), "video": f"missing-{n}.mp4", "caption": "x"} for n in range(4)]
    write_rows(small.spec.parent, [*rows, *read_rows(small)])
    records = small.records
    summary = small.encode("error_budget=0.2", "captions.trigger=mytok")
    assert summary.exit_code == 3
    assert "2 of 2 clips failed" in str(summary)
    assert "cannot read" in str(summary)
    assert small.records == records


def test_what_is_skipped_is_not_there(small):
    assert small.encode("skip=[text]").exit_code == 0
    assert all(small.dataset[index].text is None for index in range(4))
    assert "language_model" not in small.dataset.info.fingerprints


def test_clips_shorter_than_every_bucket_are_dropped(corpus, tmp_path):
    folder, clips = corpus
    names = too_short(clips)
    rows = [json.loads(line) for line in (folder / "list.jsonl").read_text().splitlines()]
    short = [{**row, "video": str(folder / row["video"])} for row in rows if row["id"] in names]
    write_rows(tmp_path, short)
    job = write_job(tmp_path, {"dataset": "list.json", "buckets": "96x64x17;64x64x9"})
    summary = job.encode()
    assert (summary.exit_code, summary.done) == (0, 0)
    assert {row["rule"] for row in job.results.values()} == {"bucket"}
    assert len(pq.read_table(job.output / "results.parquet")) == len(names)
