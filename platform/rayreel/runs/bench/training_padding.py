"""Tokens that training computes for nothing, with samples of many sizes: fillers, and padding.

Nothing is trained: a pass is taken to last as long as it has tokens, so that only the order counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import TrainPaddingCase
from rayreel.training.order import Order
from rayreel.training.passes import passes
from rayreel.training.shapes import SampleShape
from rayreel.types import ScaleFactors, VideoLatentShape, seeded_generator

_SEED = 0
Batch = Sequence[int]


@dataclass(frozen=True)
class Cost:
    """What some epochs come to, in tokens.

    Attributes:
        computed: By all processes, for the samples or for nothing.
        time: That all processes could have computed until the slowest of each pass was done.
    """

    computed: int
    time: int


def compare_padding(case: TrainPaddingCase) -> list[Line]:
    """Our steps and passes against two ways to pad, per token of the samples.

    Ours has samples of one shape in a pass. The other ways deal out random batches, and a process
    fills up its samples to the longest of them, or all of the dataset to the longest there is.
    """
    shapes = sample_shapes(case)
    needed = case.epochs * sum(shape.tokens for shape in shapes)
    lines = []
    for world, size in product(case.worlds, case.batch_sizes):
        order = Order(shapes, size, _SEED)
        ours = cost_of_passes(
            (step for epoch in range(case.epochs) for step in order.epoch(epoch)), shapes, world
        )
        batches = [
            batch for epoch in range(case.epochs) for batch in random_batches(shapes, size, epoch)
        ]
        padded = cost_of_padding(batches, shapes, world)
        longest = max(shape.tokens for shape in shapes)
        to_longest = cost_of_padding(batches, shapes, world, longest)
        lines.append(
            {
                "world": world,
                "batch_size": size,
                **_per_token("", ours, needed),
                "baseline": "random batches, padded to the longest sample of each process",
                **_per_token("baseline_", padded, needed),
                **_per_token("longest_", to_longest, needed),
                "speed_up": round(padded.time / ours.time, 3),
                "longest_speed_up": round(to_longest.time / ours.time, 3),
            }
        )
    return lines


def sample_shapes(case: TrainPaddingCase) -> list[SampleShape]:
    """Shapes of all samples of a case, of video alone."""
    found = []
    for bucket, count in zip(case.buckets, case.counts, strict=True):
        latent = VideoLatentShape.from_pixels(
            frames=bucket.num_frames,
            height=bucket.height,
            width=bucket.width,
            channels=1,
            factors=ScaleFactors(),
        )
        found += [SampleShape(str(bucket), latent.tokens)] * count
    return found


def random_batches(shapes: Sequence[SampleShape], size: int, epoch: int) -> list[Batch]:
    """Batches of an epoch of samples in any order; the last may be short."""
    generator = seeded_generator(_SEED, f"epoch{epoch}")
    numbers: list[int] = torch.randperm(len(shapes), generator=generator).tolist()
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def cost_of_passes(steps: Iterable[Batch], shapes: Sequence[SampleShape], world: int) -> Cost:
    """Cost of steps as they are shared out to processes, fillers included."""
    computed = time = 0
    for step in steps:
        for side_by_side in zip(*passes(step, shapes, world, None), strict=True):
            tokens = [sum(shapes[one].tokens for one in part.samples) for part in side_by_side]
            computed += sum(tokens)
            time += world * max(tokens)
    return Cost(computed, time)


def cost_of_padding(
    batches: Iterable[Batch], shapes: Sequence[SampleShape], world: int, longest: int | None = None
) -> Cost:
    """Cost of batches of which a process pads its part.

    Args:
        batches: Numbers of samples.
        shapes: Of every sample.
        world: Processes; where a batch has fewer samples, some of them compute nothing.
        longest: Tokens of a padded sample; by default those of the longest one of each part.
    """
    computed = time = 0
    for batch in batches:
        parts = [[shapes[one].tokens for one in batch[rank::world]] for rank in range(world)]
        tokens = [len(part) * (longest or max(part)) for part in parts if part]
        computed += sum(tokens)
        time += world * max(tokens)
    return Cost(computed, time)


def _per_token(prefix: str, cost: Cost, needed: int) -> Line:
    return {
        f"{prefix}computed": round(cost.computed / needed, 4),
        f"{prefix}time": round(cost.time / needed, 4),
    }
