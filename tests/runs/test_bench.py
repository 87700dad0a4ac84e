"""Benchmarks: what is compared is the same work, and lines say what was measured."""

from datetime import UTC, datetime, timedelta

import pytest
import torch

from rayreel.config.load import parse
from rayreel.data.ledger import LedgerEntry
from rayreel.runs.bench import BenchSpec, run
from rayreel.runs.bench.jobs import pace
from rayreel.runs.bench.pipeline import written_requests
from rayreel.runs.bench.spec import ResidentCase
from rayreel.runs.bench.timing import difference, race

TINY = [
    {
        "type": "transformer",
        "layers": 1,
        "width": 64,
        "frames": 1,
        "audio_tokens": 4,
        "text_tokens": 4,
    },
    *(
        {"type": kind, "generation": generation, "frames": 1, **sizes}
        for generation in ("2.0", "2.3")
        for kind, sizes in (
            ("video_decoder", {"base_channels": 4, "height": 2, "width": 2}),
            ("vocoder", {"channels": 96}),
        )
    ),
    {"type": "load", "layers": 1, "width": 64},
    *(
        {"type": kind, "width": 64, "height": 64, "frames": 9, "steps": 2, "clips": 1}
        for kind in ("diffusers_loop", "resident", "batches")
    ),
]
SMALL_JOB = {"width": 64, "height": 64, "frames": 9, "steps": 2, "clips": 4, "workers": 1}
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("case", TINY, ids=lambda case: " ".join(map(str, case.values())))
def test_a_comparison_tells_both_times(case):
    (lines,) = run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))
    for line in lines:
        assert line.items() >= case.items()
        assert line["speed_up"] == pytest.approx(line["baseline_seconds"] / line["seconds"], 0.01)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_compared_by_its_clips_and_as_a_whole(ray_cluster):
    case = {"type": "job_against_loop", **SMALL_JOB, "batch": 2}
    ((line,),) = run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))
    assert line.items() >= case.items()
    assert line["speed_up"] == pytest.approx(line["baseline_seconds"] / line["seconds"], 0.01)
    assert line["whole_seconds"] > line["start_seconds"] > line["seconds"] > 0
    assert (line["texts"], line["baseline_texts"]) == (5, 0)


def entry(worker: str, second: float) -> LedgerEntry:
    return LedgerEntry(
        item_id=f"{worker}-{second}",
        status="done",
        attempt=1,
        seconds={},
        seed=0,
        output="videos/clip.mp4",
        sha256="0" * 64,
        num_bytes=1,
        batch=2,
        worker=worker,
        finished_at=START + timedelta(seconds=second),
    )


def test_the_pace_of_a_job_leaves_out_the_first_batch_of_each_worker():
    first = [entry("one", second) for second in (30, 31, 32, 33)]
    assert pace(first) == pytest.approx(1)
    assert pace([*first, *(entry("two", second) for second in (90, 91, 91.5, 92))]) == (
        pytest.approx(1 / 3)
    )
    with pytest.raises(ValueError, match="no worker had a second batch"):
        pace(first[:2])


def test_half_of_the_prompts_make_as_many_different_clips():
    case = ResidentCase(type="resident", width=64, height=64, frames=9, clips=4)
    requests = written_requests(case, prompts=2, seed=10)
    assert len({request.prompt for request in requests}) == 2
    assert [request.seed for request in requests] == [10, 11, 12, 13]


def test_calls_are_made_by_turns():
    calls = []
    race(lambda: calls.append("ours"), lambda: calls.append("theirs"), seconds=0)
    assert calls == ["ours", "theirs"] * 2


def test_different_results_are_refused():
    ours = torch.ones(3)
    assert difference(ours, ours * (1 + 1e-5)) == pytest.approx(1e-5, rel=0.1)
    with pytest.raises(ValueError, match="not the same work"):
        difference(ours, ours * 1.01)
    with pytest.raises(ValueError, match="not the same work"):
        difference(ours * float("nan"), ours)
