"""The order of batches: shapes mixed, so that no stage waits while a run of one shape passes."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


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
