"""Benchmarks of training: padding by simulation, and runs against a plain loop."""

import pytest
import torch

from rayreel.config.load import parse
from rayreel.errors import SpecError
from rayreel.runs.bench import BenchSpec, run
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import TrainLoopCase, TrainPaddingCase
from rayreel.runs.bench.training import (
    plain_loop,
    prepared_steps,
    timed_run,
    tokens_per_s,
    train_spec,
)
from rayreel.runs.bench.training_cases import compare_with_plain_loop
from rayreel.runs.bench.training_padding import (
    Cost,
    cost_of_padding,
    cost_of_passes,
    random_batches,
    sample_shapes,
)
from rayreel.training.shapes import SampleShape
from tests.training.datasets import tiny_dataset

PADDING = {
    "type": "train_padding",
    "buckets": "768x448x89;768x448x49;512x768x89;960x544x49",
    "counts": [40, 30, 20, 13],
    "batch_sizes": [1, 8],
}
CLIPS = {"clips": 4, "samples": 2, "sources": "64x64x9", "buckets": "64x64x9", "workers": 1}
LOOP = {"type": "train_against_loop", **CLIPS, "epochs": 1, "modes": ["lora"]}
LONG, SHORT = SampleShape("long", 10), SampleShape("short", 4)


def lines_of(case) -> list[Line]:
    (lines,) = run(parse({"seconds": 0, "cases": [case]}, BenchSpec, where="test"))
    return lines


def test_samples_have_the_tokens_of_a_published_video_vae():
    shapes = sample_shapes(parse(PADDING, TrainPaddingCase, where="test"))
    assert [shape.tokens for shape in dict.fromkeys(shapes)] == [4032, 2352, 4608, 3570]
    assert len(shapes) == 103


def test_every_bucket_needs_a_count():
    with pytest.raises(SpecError, match="3 counts for 4 buckets"):
        parse({**PADDING, "counts": [1, 2, 3]}, TrainPaddingCase, where="test")


def test_fillers_are_computed_but_a_pass_of_one_shape_has_no_padding():
    shapes = [LONG, LONG, SHORT]
    assert cost_of_passes([(0, 1), (2,)], shapes, world=1) == Cost(24, 24)
    # The short sample comes twice, once for company.
    assert cost_of_passes([(0, 1), (2,)], shapes, world=2) == Cost(28, 28)


def test_each_process_pads_its_part_of_a_batch_and_waits_for_the_longest():
    shapes = [LONG, SHORT, SHORT, SHORT]
    assert cost_of_padding([(0, 1), (2, 3)], shapes, world=1) == Cost(20 + 8, 20 + 8)
    assert cost_of_padding([(0, 1), (2, 3)], shapes, world=2) == Cost(14 + 8, 20 + 8)
    assert cost_of_padding([(0, 1), (2, 3)], shapes, world=2, longest=10) == Cost(40, 40)
    assert cost_of_padding([(1,)], shapes, world=2) == Cost(4, 8)


def test_random_batches_hold_each_sample_once_in_an_order_of_each_epoch():
    first, second = (random_batches([LONG] * 10, 4, epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(number for batch in first for number in batch) == list(range(10))
    assert first != second


def test_steps_of_one_shape_are_compared_with_padding_for_each_world_and_batch_size():
    lines = lines_of({**PADDING, "worlds": [1, 2]})
    assert [(line["world"], line["batch_size"]) for line in lines] == [
        (1, 1),
        (1, 8),
        (2, 1),
        (2, 8),
    ]
    one_by_one, batches, _, halves = lines
    assert one_by_one["computed"] == one_by_one["baseline_computed"] == 1
    assert 1 == batches["computed"] < batches["baseline_computed"] < batches["longest_computed"]
    assert 1 <= halves["computed"] < halves["baseline_computed"]
    assert halves["speed_up"] == pytest.approx(halves["baseline_time"] / halves["time"], abs=0.002)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """What an encode job would leave of four clips."""
    return tiny_dataset(tmp_path_factory.mktemp("data"), clips=4, shapes=((2, 2, 2),))


def test_the_plain_loop_learns_what_our_run_does(dataset, tmp_path):
    optimization = {"steps": 3, "batch_size": 2, "learning_rate": 1e-2}
    spec = train_spec(dataset, tmp_path, mode="full", optimization=optimization)
    with torch.inference_mode():
        ours, theirs = timed_run(spec), plain_loop(spec, prepared_steps(spec))
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert ours.losses[0] > ours.losses[-1]
    assert len(ours.seconds) == len(theirs.seconds) == 3
    assert all(0 <= wait < took for wait, took in zip(ours.waits, ours.seconds, strict=True))


def test_steps_of_a_run_are_compared_with_those_of_a_plain_loop(dataset):
    case = parse(LOOP, TrainLoopCase, where="test")
    (line,) = compare_with_plain_loop(case, dataset, 0)
    assert (line["mode"], line["steps"], line["threads"]) == ("lora", 4, 1)
    assert line["difference"] < 1e-4
    assert line["overhead"] == pytest.approx(
        line["seconds"] / line["baseline_seconds"] - 1, abs=0.01
    )
    assert 0 <= line["wait_share"] < 1
    assert line["making_seconds"] > 0


def test_a_rate_is_that_of_the_second_half_of_the_steps():
    lines = [{"tokens": 100, "seconds": seconds} for seconds in (9.0, 8.0, 7.0, 2.0, 3.0)]
    assert tokens_per_s(lines) == pytest.approx(200 / 5)
