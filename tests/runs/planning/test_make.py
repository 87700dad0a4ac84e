"""Whole plans, and their tables."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rayreel.data.ledger import LedgerEntry
from rayreel.data.storage import Storage
from rayreel.pipelines.devices import Device
from rayreel.requests.costs import CostBook
from rayreel.runs.needs import FUSED
from rayreel.runs.planning.batch_sizes import device_bytes
from rayreel.runs.planning.make import make_plan
from rayreel.runs.planning.plan import Actual, Plan
from rayreel.runs.planning.replicas import Room
from rayreel.runs.planning.table import as_table, compare, duration, size
from tests.runs.planning.conftest import COUNTS, EIGHT, book_of, spec

CPU = Device("cpu", "float32", "for tests")
LAPTOP = replace(
    EIGHT,
    room=Room(cpus=2, gpus=0, nodes=((2, 0),)),
    devices=dict.fromkeys(EIGHT.devices, CPU),
    device_bytes={"cpu": 16 * 2**30},
)


MIXED = replace(EIGHT, devices={**EIGHT.devices, "decode": CPU})


@pytest.fixture
def plan(files, shapes):
    """Makes a plan for 1000 clips, 600 of them with a second stage, with all costs known."""

    def make(placement="auto", *, cluster=EIGHT, book=None, counts=COUNTS, decode=4.0, **fields):
        known = book_of(shapes, cluster=cluster, stage1=20.0, stage2=10.0, decode=decode)
        job = spec(placement, **fields)
        return make_plan(job, files, shapes, counts, cluster, known if book is None else book)

    return make


def replicas(made: Plan) -> dict[str, int]:
    return {pool.name: pool.replicas for pool in made.pools}


def test_auto_takes_all_gpus_and_the_faster_placement(plan):
    made = plan()
    assert made.placement == "fused"
    assert replicas(made) == {"stage1+stage2+decode": 8}
    # 20 s, 10 s for six of ten clips, and 4 s.
    assert made.throughput == pytest.approx(8 / 30)
    assert "split: 5 + 2 + 1 actors give 0.25 clips/s" in made.reason


def test_decoding_on_the_cpu_makes_split_the_faster_one(plan):
    made = plan(cluster=MIXED, decode=16.0)
    assert made.placement == "split"
    assert replicas(made) == {"stage1": 6, "stage2": 2, "decode": 5}
    assert [pool.gpus for pool in made.pools] == [1, 1, 0]


def test_stages_that_some_clips_skip_count_with_their_share(plan):
    made = plan("split")
    assert [stage.seconds for pool in made.pools for stage in pool.stages] == [20, 6, 4]
    assert [pool.bottleneck for pool in made.pools] == [True, False, False]


def test_limits_of_the_spec_hold(plan):
    fixed = plan("split", stages={"stage1": {"replicas": 3}})
    assert replicas(fixed) == {"stage1": 3, "stage2": 1, "decode": 1}
    elastic = plan("split", workers={"max_replicas": 4})
    assert replicas(elastic) == {"stage1": 4, "stage2": 2, "decode": 1}
    assert replicas(plan(workers={"replicas": 2})) == dict.fromkeys(replicas(fixed), 2)


def test_a_device_too_small_for_all_stages_rules_fused_out(plan, files, shapes):
    needs = [device_bytes(spec(), files, shape, EIGHT.devices, 1) for shape, _ in shapes]
    fused = max(need.pop(FUSED) for need in needs)
    split = max(need[stage] for need in needs for stage in need if stage != "text")
    made = plan(cluster=replace(EIGHT, device_bytes={"cuda": (fused + split) * 5 // 9}))
    assert made.placement == "split"
    assert "fused is out" in made.reason
    assert "that may be used" in made.reason


def test_the_passes_follow_each_other_with_their_starts(plan):
    made = plan()
    # 900 texts of 50 ms by 8 actors, in batches of 8.
    assert made.text_s == pytest.approx(20 + 900 * 0.05 / 8, rel=0.05)
    assert made.render_s == pytest.approx(60 + 1000 * 30 / 8, rel=0.03)
    assert made.gpu_hours == pytest.approx(8 * made.seconds / 3600)


def test_with_no_new_text_there_is_no_text_pass(plan):
    made = plan(counts=replace(COUNTS, texts_known=901, texts_new=0))
    assert (made.text, made.text_s, made.text_bytes) == (None, 0, 0)


def test_few_texts_need_few_actors(plan):
    made = plan(counts=replace(COUNTS, texts_new=9))
    assert made.text.replicas == 2


def test_actors_of_a_laptop_share_its_cpus(plan):
    made = plan("split", cluster=LAPTOP)
    assert [(pool.replicas, pool.cpus) for pool in made.pools] == [(1, 0.66)] * 3
    assert replicas(plan(cluster=LAPTOP)) == {"stage1+stage2+decode": 2}


def test_what_is_not_known_is_told_and_not_made_up(plan):
    made = plan(book=CostBook())
    assert (made.throughput, made.seconds, made.gpu_hours) == (None, None, None)
    assert made.placement == "fused"
    assert sum("nothing is known" in note for note in made.notes) == 6
    assert "?" in as_table(made)


def test_storage_is_measured_or_said_to_be_guessed(plan):
    assert (plan().clip_bytes, plan().clip_bytes_measured) == (1000 * 100_000, True)
    assert "guessed from size and length" in as_table(plan(book=CostBook()))
    assert plan().latent_bytes == 0 < plan(keep_latents=True).latent_bytes


def test_with_nothing_left_there_is_nothing_to_plan(files):
    with pytest.raises(ValueError, match="no clip is left"):
        make_plan(spec(), files, [], COUNTS, EIGHT, CostBook())


def test_a_batch_size_of_the_spec_is_taken(plan):
    made = plan("fused", workers={"batch_size": 2})
    assert set(made.batch_sizes.values()) == {2}
    assert "stage1 of batches of 2 counts as of 8" in made.notes


def test_a_plan_is_read_back_as_it_was_saved(plan, tmp_path):
    storage = Storage(tmp_path)
    assert Plan.load(storage) is None
    plan().save(storage)
    assert Plan.load(storage) == plan()


def test_the_table_says_all_of_it(plan):
    lines = as_table(plan("split", stages={"stage1": {"replicas": 3}})).splitlines()
    assert lines[0] == "1200 rows, 1010 clips: 10 finished, 1000 left; texts: 1 known, 900 new"
    assert lines[1].startswith("  600 x two_stage 128x64x9 24fps s2x4: batch 8")
    (stage1,) = (line.split() for line in lines if line.startswith("stage1"))
    assert " ".join(stage1) == "stage1 * 3 x (1 CPU, 1 GPU) 8 20 measured 100% 0.15"
    assert all(len(line) <= 120 for line in lines)


def entry(name: str, **seconds: float) -> LedgerEntry:
    return LedgerEntry(
        item_id=name, status="done", attempt=1, seconds=seconds, output="videos/a.mp4", sha256="0",
        num_bytes=50_000, worker="w", finished_at=datetime.now(UTC),
    )  # fmt: skip


def test_a_run_is_compared_with_its_plan(plan):
    two, one = entry("a", stage1=22.0, stage2=10.0, decode=4.0), entry("b", stage1=22.0, decode=4.0)
    actual = Actual.of([two, one], text_s=30.0, render_s=10.0, gpu_hours=0.5, per_text_s=0.1)
    assert actual.stages == {"text": 0.1, "stage1": 22, "stage2": 5, "decode": 4}
    lines = {line.split("  ")[0]: line.split() for line in compare(plan(), actual).splitlines()}
    assert lines["stage1, s per item"][-3:] == ["20", "22", "+10%"]
    assert lines["text, s per item"][-3:] == ["0.05", "0.1", "+100%"]
    assert lines["size of clips"][-5:] == ["100", "MB", "100", "kB", "-100%"]


def test_a_run_without_a_clip_is_compared_too(plan):
    actual = Actual.of([], text_s=0.0, render_s=0.0, gpu_hours=0.0)
    assert "clips" in compare(plan(), actual)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "?"),
        (8.14, "8.14 s"),
        (200, "3 min 20 s"),
        (14_700, "4 h 05 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_times_are_told_for_people(seconds, told):
    assert duration(seconds) == told


def test_sizes_are_told_for_people():
    assert [size(n) for n in (0, 999, 1500, 2e12)] == ["0 B", "999 B", "1.5 kB", "2 TB"]
