"""Which resolution bucket a clip goes to."""

import math
from collections.abc import Sequence

from rayreel.config.buckets import Bucket


def choose_bucket(
    buckets: Sequence[Bucket], *, width: int, height: int, num_frames: int
) -> Bucket | None:
    """The bucket that a clip loses least in.

    Of those with no more frames than the clip: the nearest in aspect ratio, then the one with the
    most frames, then the largest picture, then the first.

    Args:
        buckets: Any.
        width: Pixels of the upright picture.
        height: The same.
        num_frames: Frames that there are.

    Returns:
        ``None`` where the clip is too short for every bucket.
    """
    aspect = math.log(width / height)

    def loss(bucket: Bucket) -> tuple[float, int, int]:
        away = abs(aspect - math.log(bucket.width / bucket.height))
        return away, -bucket.num_frames, -bucket.width * bucket.height

    fitting = [bucket for bucket in buckets if bucket.num_frames <= num_frames]
    return min(fitting, key=loss, default=None)


def scaled_buckets(buckets: Sequence[Bucket], divisor: int) -> tuple[Bucket, ...]:
    """Buckets of references that are smaller than their targets.

    Args:
        buckets: Of the targets.
        divisor: Of width and height.

    Raises:
        ValueError: If a size is no multiple of the divisor.
    """
    for bucket in buckets:
        for name, value in (("width", bucket.width), ("height", bucket.height)):
            if divisor < 1 or value % divisor:
                raise ValueError(
                    f"bucket {bucket}: {name} {value} cannot be divided by {divisor}; references "
                    "are smaller than their targets by a divisor of both"
                )
    return tuple(
        Bucket(
            width=bucket.width // divisor,
            height=bucket.height // divisor,
            num_frames=bucket.num_frames,
        )
        for bucket in buckets
    )
