"""How the samples of an optimiser step are shared out: passes through the model, for each worker.

Workers go through their passes side by side, and each pass takes as long as the longest of them.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rayreel.training.shapes import SampleShape


@dataclass(frozen=True, slots=True)
class Pass:
    """Samples of one shape that go through the model together.

    Attributes:
        samples: Their numbers in the dataset.
        weight: That their losses count with: 1, or 0 where a worker only keeps others company.
    """

    samples: tuple[int, ...]
    weight: float = 1.0


def passes(
    step: Sequence[int], shapes: Sequence[SampleShape], world: int, micro_batch: int | None
) -> list[list[Pass]]:
    """Passes of every worker: each sample in one that counts, and no worker with more of them.

    Workers wait for each other as little as can be had simply, and among equally good ways the one
    with the fewest passes is taken.

    Args:
        step: Numbers of the samples, at least one.
        shapes: Of every sample of the dataset.
        world: Workers.
        micro_batch: Samples of a pass, at most.

    Returns:
        A list for each worker, all of one length. Samples of a pass are of one shape.
    """
    of_shape: defaultdict[Hashable, list[int]] = defaultdict(list)
    for sample in step:
        of_shape[shapes[sample].key].append(sample)
    groups = [_Group(samples, shapes[samples[0]].tokens) for samples in of_shape.values()]
    rounds = min(
        (_rounds(groups, counts, world) for counts in _counts(groups, world, micro_batch)),
        key=lambda rounds: (sum(one[0].tokens for one in rounds), len(rounds)),
    )
    cheapest = min(step, key=lambda sample: shapes[sample].tokens)
    company = _Cut(Pass((cheapest,), 0.0), shapes[cheapest].tokens)
    return _shared_out([one + [company] * (world - len(one)) for one in rounds], world)


class _Group(NamedTuple):
    """Samples of one shape, and the tokens of one of them."""

    samples: list[int]
    tokens: int

    def longest(self, passes: int) -> int:
        """Tokens of the longest of so many passes."""
        return self.tokens * math.ceil(len(self.samples) / passes)

    def cut(self, passes: int) -> "Iterator[_Cut]":
        """So many passes, of nearly equal length."""
        size, longer = divmod(len(self.samples), passes)
        start = 0
        for number in range(passes):
            end = start + size + (number < longer)
            yield _Cut(Pass(tuple(self.samples[start:end])), self.tokens * (end - start))
            start = end


class _Cut(NamedTuple):
    """A pass, and its tokens."""

    one: Pass
    tokens: int


def _counts(
    groups: Sequence[_Group], world: int, micro_batch: int | None
) -> Iterator[tuple[int, ...]]:
    """Numbers of passes, by group, that may be good ones."""
    sizes = [len(group.samples) for group in groups]
    limit = micro_batch or sum(sizes)
    least = [math.ceil(size / limit) for size in sizes]
    first, last = math.ceil(sum(least) / world), math.ceil(sum(sizes) / world)
    # Beyond a further round for each shape, passes are hardly more equal.
    for rounds in range(first, min(first + len(groups), last) + 1):
        yield _filled(groups, least, rounds * world)
    # Each shape on its own, over all workers.
    yield tuple(min(size, world * math.ceil(size / (world * limit))) for size in sizes)


def _filled(groups: Sequence[_Group], least: Sequence[int], places: int) -> tuple[int, ...]:
    """More passes than the least, of what would be the longest ones, until all places are taken."""
    counts = list(least)
    longest = [
        (-one.longest(count), place)
        for place, (one, count) in enumerate(zip(groups, counts, strict=True))
    ]
    heapq.heapify(longest)
    spare = places - sum(counts)
    while spare and longest:
        _, place = heapq.heappop(longest)
        if counts[place] < len(groups[place].samples):
            counts[place] += 1
            spare -= 1
            heapq.heappush(longest, (-groups[place].longest(counts[place]), place))
    return tuple(counts)


def _rounds(groups: Sequence[_Group], counts: Sequence[int], world: int) -> list[list[_Cut]]:
    """Passes side by side, the longest ones with each other and first."""
    cuts = [one for group, count in zip(groups, counts, strict=True) for one in group.cut(count)]
    cuts.sort(key=lambda cut: -cut.tokens)
    return [cuts[start : start + world] for start in range(0, len(cuts), world)]


def _shared_out(rounds: Sequence[Sequence[_Cut]], world: int) -> list[list[Pass]]:
    """To each worker a pass of each round: long ones to those that had short ones."""
    shares: list[list[Pass]] = [[] for _ in range(world)]
    tokens = [0] * world
    for round_ in rounds:
        workers = sorted(range(world), key=tokens.__getitem__)
        for worker, cut in zip(workers, round_, strict=True):
            shares[worker].append(cut.one)
            tokens[worker] += cut.tokens
    return shares
