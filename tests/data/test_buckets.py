import pytest

from rayreel.config.buckets import Bucket
from rayreel.data.buckets import choose_bucket, scaled_buckets

BUCKETS = [
    Bucket.model_validate(text)
    for text in ("768x448x89", "768x448x49", "512x768x89", "960x544x49", "768x448x1")
]


@pytest.mark.parametrize(
    ("width", "height", "num_frames", "expected"),
    [
        (1920, 1080, 60, "960x544x49"),
        (1920, 1080, 200, "960x544x49"),
        (1080, 1920, 200, "512x768x89"),
        (640, 480, 120, "768x448x89"),
        (1280, 720, 30, "768x448x1"),
    ],
)
def test_aspect_ratio_comes_before_frames_and_those_before_size(
    width, height, num_frames, expected
):
    found = choose_bucket(BUCKETS, width=width, height=height, num_frames=num_frames)
    assert str(found) == expected


def test_of_equal_aspect_and_frames_the_largest_is_taken_and_then_the_first():
    small, large = (Bucket.model_validate(text) for text in ("384x224x9", "768x448x9"))
    for order in ([small, large], [large, small]):
        assert choose_bucket(order, width=768, height=448, num_frames=9) is large
    again = large.model_copy()
    assert choose_bucket([large, again], width=768, height=448, num_frames=9) is large


def test_a_clip_that_is_too_short_has_no_bucket():
    assert choose_bucket(BUCKETS[:4], width=768, height=448, num_frames=48) is None
    assert choose_bucket([], width=768, height=448, num_frames=48) is None


def test_a_reference_cannot_be_smaller_by_what_does_not_divide_its_size():
    with pytest.raises(ValueError, match="768x448x89: height 448 cannot be divided by 3"):
        scaled_buckets(BUCKETS, 3)
    with pytest.raises(ValueError, match="divided by 0"):
        scaled_buckets(BUCKETS, 0)
