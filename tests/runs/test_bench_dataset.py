"""Benchmarks of the encode job: orders of work by simulation, and whole jobs against a script."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rayreel.config.load import parse
from rayreel.media.footage import examine
from rayreel.runs.bench import BenchSpec, run
from rayreel.runs.bench.clip_files import write_clips
from rayreel.runs.bench.encoding import encode_one_by_one, encode_spec, traced_passes
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.sharding import interleaved, lower_bound, queued
from rayreel.runs.bench.spec import EncodeLoopCase, TextBatchesCase
from rayreel.runs.bench.text_batches import captions
from rayreel.runs.planning.order import longest_first

SHARDING = {"type": "sharding", "clips": 1000, "workers": 8, "alpha": 1.2, "corpora": 5}
TEXTS = {"type": "text_batches", "texts": 8, "batch": 4, "shortest": 4, "longest": 40}
CLIPS = {"sources": "64x48x9;48x64x10", "buckets": "64x32x9;32x64x9", "workers": 1}
SCRIPT = {"type": "encode_against_script", **CLIPS, "clips": 4}
COSTS = st.lists(st.floats(0.1, 100), min_size=1, max_size=30)


def lines_of(case) -> Iterator[list[Line]]:
    return run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))


def test_a_fixed_share_is_every_so_manieth_clip():
    assert interleaved([5, 1, 1, 1, 4], workers=2) == 5 + 1 + 4


def test_a_free_worker_takes_the_next_batch():
    assert queued([5, 3, 2, 2], workers=2, waiting=0) == 7
    assert queued([1, 1, 1], workers=5, waiting=0) == 1


def test_a_batch_that_waits_at_a_worker_is_not_given_away():
    assert queued([5, 3, 2], workers=2, waiting=0) == 5
    assert queued([5, 3, 2], workers=2, waiting=1) == 5 + 2


@given(costs=COSTS, workers=st.integers(1, 6), waiting=st.integers(0, 2))
def test_no_order_beats_the_bound(costs, workers, waiting):
    bound = lower_bound(costs, workers=workers) * (1 - 1e-9)
    assert queued(costs, workers=workers, waiting=waiting) >= bound
    assert interleaved(costs, workers=workers) >= bound


@given(costs=COSTS, most=st.integers(1, 5), workers=st.integers(1, 6))
def test_batches_hold_each_clip_once_and_the_longest_come_first(costs, most, workers):
    batches = longest_first(costs, most=most, workers=workers)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(costs)))
    assert [costs[index] for index in order] == sorted(costs, reverse=True)
    assert max(map(len, batches)) <= most


def test_the_longer_clips_are_the_fewer_share_a_batch():
    assert longest_first([1, 90, 1, 1, 80, 1], most=4, workers=2) == [[1], [4], [0, 2], [3, 5]]


def test_a_queue_is_faster_than_fixed_shares_for_few_long_clips():
    ((line,),) = lines_of(SHARDING)
    assert line.items() >= SHARDING.items()
    assert line["speed_up"] > 1.3
    assert line["speed_up"] > line["worst_speed_up"] > 1
    assert 1 >= line["share_of_bound"] > 0.95 > line["baseline_share_of_bound"]


def test_sharding_is_the_same_whenever_it_is_simulated():
    first, second = (next(lines_of(SHARDING))[0] for _ in range(2))
    assert first["speed_up"] == second["speed_up"]


def test_captions_are_encoded_in_batches_of_like_length():
    (lines,) = lines_of(TEXTS)
    assert [line["baseline"] for line in lines] == ["one at a time", "batches in any order"]
    for line in lines:
        assert line.items() >= TEXTS.items()
        assert line["speed_up"] == pytest.approx(
            line["baseline_seconds"] / line["seconds"], rel=0.01, abs=0.001
        )


def test_captions_of_a_benchmark_have_mixed_lengths():
    case = parse({**TEXTS, "texts": 200}, TextBatchesCase, where="test")
    lengths = [len(text) for text in captions(case)]
    assert 4 <= min(lengths) < 6
    assert 36 < max(lengths) <= 40
    assert sorted(lengths)[100] < 16


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """The list of a benchmark, beside its clips."""
    case = parse(SCRIPT, EncodeLoopCase, where="test")
    return write_clips(tmp_path_factory.mktemp("clips"), case.sources, case.clips)


def test_clips_of_a_benchmark_are_all_different(clips):
    rows = [json.loads(line) for line in clips.read_text().splitlines()]
    assert len({row["caption"] for row in rows}) == 4
    assert len({(clips.parent / row["video"]).read_bytes() for row in rows}) == 4


def test_clips_of_a_benchmark_have_the_sizes_of_the_spec_by_turns_and_sound(clips):
    seen = [examine(path) for path in sorted(clips.parent.glob("*.mp4"))]
    sizes = [(one.width, one.height, one.num_frames) for one in seen]
    assert sizes == [(64, 48, 9), (48, 64, 10)] * 2
    assert [one.sound_s for one in seen] == pytest.approx([9 / 25, 10 / 25] * 2, abs=0.05)


def test_the_script_encodes_every_clip_of_the_list(clips, tmp_path):
    spec = encode_spec(parse(SCRIPT, EncodeLoopCase, where="test"), clips, tmp_path)
    took = encode_one_by_one(spec, tmp_path)
    made = [load_file(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    shapes = [tuple(one["video_latents"].shape[1:]) for one in made]
    assert shapes == [(2, 1, 2), (2, 2, 1)] * 2
    assert all({"audio_latents", "text"} < one.keys() for one in made)
    assert took.whole > took.clip > 0


def test_the_pace_of_a_pass_leaves_out_the_first_batch_of_each_worker(tmp_path):
    first = [span("text", "a", 0, 10), span("text", "a", 0, 10), span("text", "a", 11, 12)]
    second = [span("text", "b", 3, 9), span("text", "b", 9, 10)]
    for name, lines in (("a", first), ("b", second)):
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    found = traced_passes(tmp_path)["text"]
    assert found.window == pytest.approx(12)
    assert found.seconds == pytest.approx(5 / (1 / 2 + 1 / 1))


def test_a_pass_of_one_batch_takes_as_long_as_that(tmp_path):
    (tmp_path / "a.jsonl").write_text(span("shards", "a", 5, 7) + span("item", "driver", 0, 9))
    passes = traced_passes(tmp_path)
    assert list(passes) == ["shards"]
    assert passes["shards"].seconds == pytest.approx(2)


def span(name: str, worker: str, began: float, ended: float) -> str:
    """A line of a worker's traces."""
    times = {"start_time": began, "end_time": ended}
    values = {key: f"2026-01-01T00:00:{second:02}.000000Z" for key, second in times.items()}
    return json.dumps({"name": name, **values, "attributes": {"rayreel.worker": worker}}) + "\n"


@pytest.mark.ray
@pytest.mark.slow
def test_bytes_of_a_sample_are_told_by_part(ray_cluster):
    ((line,),) = lines_of({"type": "encode_bytes", **CLIPS, "clips": 2})
    parts = line["part_bytes"]
    assert set(parts) == {"video_latents", "audio_latents", "text"}
    # Two latent frames of two positions of the tiny model's 16 channels, in two bytes each.
    assert parts["video_latents"] == 2 * 2 * 16 * 2
    assert line["sample_bytes"] == pytest.approx(sum(parts.values()) + line["other_bytes"], abs=2)
    assert line["rgb_bytes"] == 3 * 9 * 64 * 32
