"""What a stage is: a picklable callable that turns a batch of items into as many results."""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from rayreel.config.request import RenderRequest
from rayreel.errors import CheckpointError
from rayreel.types import Latents, TextContext

log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailure:
    """An item that could not be done, as a value that travels on with the others.

    Attributes:
        item_id: The item.
        stage: Where it failed.
        error: Class of the error.
        message: What it said.
        seed: Seed of the request.
        attempt: Which try of the item this was, from 1.
    """

    item_id: str
    stage: str
    error: str
    message: str
    seed: int | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderItem:
    """A request on its way from prompt to clip; each stage fills in its part.

    Attributes:
        item_id: Identity of the request and the weights.
        request: The resolved request.
        prompts: What it is rendered from, where prompts were written for it: one for each chunk.
        notes: What happened otherwise than asked.
        context: The prompt, encoded.
        negative: The negative prompt, encoded, where the request is guided.
        latents: The clip before decoding; chunks of a long one lie in the run directory instead.
        output: The written clip.
        attempt: Which try of the item this is, from 1.
        seconds: Time that each stage took for this item; a batch's time is shared evenly.
    """

    item_id: str
    request: RenderRequest
    prompts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    context: TextContext | None = None
    negative: TextContext | None = None
    latents: Latents | None = None
    output: "ClipFile | None" = None
    attempt: int = 1
    seconds: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFile:
    """A clip, a sound or an image in the run directory.

    Attributes:
        path: Where it lies, from the run directory.
        sha256: Hash of the decoded frames, or of sound alone, before they were compressed.
        num_bytes: Size of the file.
    """

    path: str
    sha256: str
    num_bytes: int


Result = RenderItem | ItemFailure


class Stage(Protocol):
    """A unit of a job that can be scheduled on its own.

    Cheap to build and to pickle; ``setup`` loads weights, once, where the stage runs. A call gives
    one result per item, in order. Workers die and are replaced, so a stage may see an item twice.
    """

    @property
    def name(self) -> str:
        """Name in specs, ledgers and logs."""

    def setup(self) -> None:
        """Load what the stage needs."""

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Do the stage's part for every item."""


def run_stage(stage: Stage, results: Sequence[Result]) -> list[Result]:
    """Apply a stage to the items of a batch; what failed before passes through.

    Returns:
        One result per input, in order, with the stage's time noted.
    """
    items = [result for result in results if isinstance(result, RenderItem)]
    if not items:
        return list(results)
    start = time.perf_counter()
    done = stage(items)
    each = (time.perf_counter() - start) / len(items)
    outcome = iter(
        replace(result, seconds=(*result.seconds, (stage.name, each)))
        if isinstance(result, RenderItem)
        else result
        for result in done
    )
    return [next(outcome) if isinstance(r, RenderItem) else r for r in results]


def in_groups(
    name: str,
    batch: Sequence[RenderItem],
    key: Callable[[RenderItem], Hashable],
    work: Callable[[list[RenderItem]], list[RenderItem]],
) -> list[Result]:
    """Do the work of a stage for groups of like items, so that one bad item costs one item.

    A group that fails is done again item by item, and the items that fail alone become failures.
    Weights that do not load are not the fault of an item: that error goes on to the caller.

    Args:
        name: The stage.
        batch: Items.
        key: Items of the same key may share one call.
        work: Does a group.

    Returns:
        One result per item, in order.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(batch):
        groups.setdefault(key(item), []).append(index)
    results: dict[int, Result] = {}
    for indices in groups.values():
        group = [batch[index] for index in indices]
        results |= zip(indices, _attempt(name, group, work), strict=True)
    return [results[index] for index in range(len(batch))]


def _attempt(
    name: str,
    group: list[RenderItem],
    work: Callable[[list[RenderItem]], list[RenderItem]],
) -> list[Result]:
    try:
        return list(work(group))
    except CheckpointError:
        raise
    except Exception as error:
        if len(group) > 1:
            log.warning("%s: a batch of %d failed, trying each item alone", name, len(group))
            return [result for item in group for result in _attempt(name, [item], work)]
        log.warning("%s: item %s failed", name, group[0].item_id, exc_info=True)
        return [
            ItemFailure(
                item_id=group[0].item_id,
                stage=name,
                error=type(error).__name__,
                message=str(error) or type(error).__name__,
                seed=group[0].request.seed,
                attempt=group[0].attempt,
            )
        ]
