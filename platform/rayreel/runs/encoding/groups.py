"""Which clips are encoded together.

The numbers of a batch depend on its shape, in their last bits. So groups are made of a wave as the
list has it, whatever is finished or has failed, and one of which less is left is encoded in the
shape of the whole: a run that was killed comes to the same numbers.
"""

from collections.abc import Collection, Iterable, Sequence

from rayreel.data.samples import Mask, Medium, Picture, Sound
from rayreel.runs.planning.order import longest_first
from rayreel.stages.latents import LatentItem

# Pixels of a call: a published encoder takes some 80 bytes for each in bfloat16, and is faster in
# batches only where pictures are small.
_PIXELS = 32_000_000
_MOST = 8
# Groups that a worker is sent at once: the next is decoded while one is encoded.
_GROUPS = 4

Keyed = tuple[tuple[str, Medium], ...]
"""Media and their keys."""


def grouped(media: Iterable[Keyed], missing: Collection[str], size: int | None) -> list[LatentItem]:
    """Items for what is missing.

    Args:
        media: Of the samples of a wave, in order; each key counts once.
        missing: Keys that have no record yet.
        size: Items of a group; ``None``: as many as have some 32 million pixels, up to 8.
    """
    kinds: dict[str, list[Keyed]] = {}
    seen: set[str] = set()
    for keyed in media:
        new = tuple((key, medium) for key, medium in keyed if key not in seen)
        seen |= {key for key, _ in new}
        if new:
            kinds.setdefault(shape_name(new), []).append(new)
    items: list[LatentItem] = []
    for kind, members in kinds.items():
        step = size or max(1, min(_MOST, _PIXELS // max(1, cost(members[0]))))
        for start in range(0, len(members), step):
            group = members[start : start + step]
            name = f"{kind}/{start // step}"
            items += [
                LatentItem(
                    item_id="-".join(key for key, _ in keyed),
                    media=keyed,
                    group=name,
                    group_size=len(group),
                    missing=wanted,
                )
                for keyed in group
                if (wanted := frozenset(key for key, _ in keyed if key in missing))
            ]
    return items


def batches(items: Sequence[LatentItem], workers: int) -> list[list[LatentItem]]:
    """Whole groups, some to a batch; the most work goes out first."""
    groups: dict[str, list[LatentItem]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    units = list(groups.values())
    ordered = longest_first([_work(unit) for unit in units], most=_GROUPS, workers=workers)
    return [[item for index in batch for item in units[index]] for batch in ordered]


def cost(keyed: Keyed) -> int:
    """Pixels of what is encoded; a sound counts about as much as a small picture."""
    return sum(_pixels(medium) for _, medium in keyed)


def _work(group: Sequence[LatentItem]) -> int:
    return sum(cost(item.media) for item in group)


def _pixels(medium: Medium) -> int:
    match medium:
        case Picture(bucket=bucket):
            return bucket.width * bucket.height * bucket.num_frames
        case Sound(duration_s=seconds):
            return int(50_000 * seconds)
        case Mask(of=target):
            return _pixels(target) // 10
    raise AssertionError("no other kind of medium")


def shape_name(keyed: Keyed) -> str:
    """What items must agree in to share calls."""
    parts = []
    for _, medium in keyed:
        match medium:
            case Picture(bucket=bucket):
                parts.append(str(bucket))
            case Sound(duration_s=seconds):
                parts.append(f"{seconds:.6f} s")
            case Mask():
                parts.append("mask")
    return " ".join(parts)
