"""What clips cost alike."""

import pytest

from rayreel.requests.shapes import shape_name, shape_of
from rayreel.runs.planning.make import count_shapes
from tests.pipelines.small import small_resolved


def test_a_name_says_size_steps_and_passes(files):
    request = small_resolved(files, pipeline="two_stage")
    assert shape_name(request) == "two_stage 128x64x9 24fps s2x4"
    assert shape_name(small_resolved(files, pipeline="distilled")).endswith("s8x1")


@pytest.mark.parametrize(
    "change",
    [
        {"width": 64},
        {"num_frames": 17},
        {"fps": 25},
        {"steps": 3},
        {"audio": False},
        {"sampler": "res_2s"},
    ],
)
def test_what_costs_otherwise_has_another_name(files, change):
    one = small_resolved(files, pipeline="one_stage")
    other = small_resolved(files, pipeline="one_stage", **change)
    assert shape_name(one) != shape_name(other)


@pytest.mark.parametrize("change", [{"prompt": "A heron."}, {"seed": 2}, {"crf": 23}])
def test_what_costs_the_same_has_the_same_name(files, change):
    one = small_resolved(files, pipeline="one_stage")
    other = small_resolved(files, pipeline="one_stage", **change)
    assert shape_name(one) == shape_name(other)


def test_work_grows_with_steps_passes_and_somewhat_more_than_with_tokens(files):
    def work(**fields) -> float:
        return shape_of(small_resolved(files, pipeline="one_stage", **fields), files).work["stage1"]

    assert work(steps=6) == pytest.approx(3 * work())
    assert 2 * work() < work(width=256) < 3 * work()
    silent = work(audio=False, video_guidance={"stg_scale": 0.0, "modality_scale": 1.0})
    assert silent == pytest.approx(work() / 2)


def test_the_first_of_two_stages_works_at_half_size(files):
    one, two = (
        shape_of(small_resolved(files, pipeline=name), files).work
        for name in ("one_stage", "two_stage")
    )
    assert list(one) == ["stage1", "decode"]
    assert list(two) == ["stage1", "stage2", "decode"]
    assert two["stage1"] < one["stage1"] / 4


def test_a_long_clip_is_all_made_in_its_first_stage_and_alone(files):
    long = shape_of(
        small_resolved(
            files, pipeline="two_stage", num_frames=49, chain={"chunk_frames": 25, "overlap": 1}
        ),
        files,
    )
    whole = shape_of(small_resolved(files, pipeline="two_stage", num_frames=49), files)
    assert (list(long.work), long.batched) == (["stage1", "decode"], False)
    assert long.work["stage1"] > whole.work["stage1"] + 0.9 * whole.work["stage2"]


def test_equal_shapes_are_counted_together_and_the_most_frequent_comes_first(files):
    requests = [
        (small_resolved(files, pipeline="one_stage", prompt="A fox."), 2),
        (small_resolved(files, pipeline="two_stage"), 4),
        (small_resolved(files, pipeline="one_stage", prompt="A heron."), 3),
    ]
    found = [(shape.request.pipeline, count) for shape, count in count_shapes(requests, files)]
    assert found == [("one_stage", 5), ("two_stage", 4)]
