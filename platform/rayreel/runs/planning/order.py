"""The order of batches: shapes mixed for stages in a row, the longest first for a single one."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# A batch is no longer than this part of what a worker has to do on average, if it can be shorter.
_LARGEST_PART = 1 / 32


def interleaved(groups: Sequence[Sequence[T]]) -> Iterator[T]:
    """All batches of some groups, every stretch with about the same share of each group.

    Pools of split stages are sized for the average clip. While a run of clips passes that skip
    stage 2, its actors stand still, and behind a run of clips that need it stage 1 has to wait: in
    a simulation such an order takes up to twice as long.

    Args:
        groups: Batches of like items, a group for each shape.

    Yields:
        Batches; those of a group keep their order.
    """
    places = sorted(
        ((index + 0.5) / len(group), number, index)
        for number, group in enumerate(groups)
        for index in range(len(group))
    )
    for _, number, index in places:
        yield groups[number][index]


def longest_first(estimates: Sequence[float], *, most: int, workers: int) -> list[list[int]]:
    """Batches of items of like cost, in the order in which they go out.

    Behind short ones no worker waits long for the others at the end.

    Args:
        estimates: What each item is thought to cost.
        most: Items of a batch, at most; batches of long ones are smaller.
        workers: How many share the work.

    Returns:
        Places in ``estimates``, each once.
    """
    limit = sum(estimates) / workers * _LARGEST_PART
    batches: list[list[int]] = []
    filled = 0.0
    for index in sorted(range(len(estimates)), key=lambda index: (-estimates[index], index)):
        if not batches or len(batches[-1]) == most or filled + estimates[index] > limit:
            batches.append([])
            filled = 0.0
        batches[-1].append(index)
        filled += estimates[index]
    return batches
