"""Benchmarks: what is compared is the same work, and lines say what was measured."""

import pytest
import torch

from rayreel.config.load import parse
from rayreel.runs.bench import BenchSpec, run
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
        for kind in ("diffusers_loop", "resident")
    ),
]


@pytest.mark.parametrize("case", TINY, ids=lambda case: " ".join(map(str, case.values())))
def test_a_comparison_tells_both_times(case):
    (lines,) = run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))
    for line in lines:
        assert line.items() >= case.items()
        assert line["speed_up"] == pytest.approx(line["baseline_seconds"] / line["seconds"], 0.01)


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
