"""Which clips are denoised together, and in which order batches go out."""

from collections.abc import Callable, Hashable, Iterable, Sequence

from rayreel.config.request import RenderRequest
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.phases import batch_key
from rayreel.runs.planning.order import interleaved
from rayreel.stages.base import RenderItem

Size = Callable[[RenderRequest], int]
"""How many requests like this one share a batch, at most."""


def like_batches(
    items: Iterable[RenderItem], size: Size, *, workers: int = 1
) -> list[list[RenderItem]]:
    """Like items in batches, kinds mixed, so that short clips do not wait for all long ones.

    Args:
        items: Of one wave, each once.
        size: Of a batch, at most.
        workers: How many shall have something to do: with few items, batches are smaller.
    """
    kinds: dict[Hashable, list[RenderItem]] = {}
    for item in items:
        # The chunks of a long clip depend on each other: there is no one to share with.
        key = item.item_id if is_chained(item.request) else batch_key(item.request)
        kinds.setdefault(key, []).append(item)
    total = sum(map(len, kinds.values()))
    most = max(1, -(-total // workers))
    return list(
        interleaved([_cut(kind, min(size(kind[0].request), most)) for kind in kinds.values()])
    )


def _cut(items: Sequence[RenderItem], size: int) -> list[list[RenderItem]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
