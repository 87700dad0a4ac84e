"""What items of an encode job cost, as costs are kept for later runs."""

from dataclasses import dataclass, field

from rayreel.config.encode import EncodeStageName
from rayreel.requests.costs import CostBook, Item, Observation
from rayreel.runs.encoding.groups import cost, shape_name
from rayreel.stages.base import StageItem, TextItem
from rayreel.stages.caption import CaptionItem
from rayreel.stages.latents import LatentItem
from rayreel.stages.scan import ScanItem
from rayreel.stages.shards import ShardItem

SOUND_ALONE = "sound alone"
"""What samples without a picture have for a bucket."""

# A sample tells as much as a million.
_MOST = 20_000


@dataclass
class EncodeCosts:
    """Collects seconds of items while a job is at work."""

    _observations: list[Observation] = field(default_factory=list)
    _sizes: list[tuple[str, int]] = field(default_factory=list)

    def took(self, name: EncodeStageName, item: StageItem, device: str) -> None:
        """An item has gone through a pass.

        Args:
            name: Of the pass.
            item: With its seconds.
            device: Of the pass, as ``device_label`` says it.
        """
        if item.memory or len(self._observations) >= _MOST:
            return
        seconds = dict(item.seconds).get(name)
        if seconds is not None:
            self._observations.append(
                Observation(
                    item=item_cost(name, item),
                    device=device,
                    batch=item.group_size if isinstance(item, LatentItem) else 1,
                    seconds=seconds,
                )
            )
        if isinstance(item, ShardItem) and item.output:
            each = item.output.num_bytes // len(item.samples)
            buckets = {str(one.info.bucket or SOUND_ALONE) for one in item.samples}
            # Of a mixed shard this is no more than a guess, and better than none.
            self._sizes += [(bucket, each) for bucket in sorted(buckets)]

    def book(self) -> CostBook:
        """What is known by now."""
        return CostBook.of(self._observations, self._sizes)


def item_cost(name: EncodeStageName, item: StageItem) -> Item:
    """What the cost of an item is kept as."""
    match item:
        case TextItem():
            return Item.text()
        case LatentItem(media=media):
            return Item(stage=name, shape=shape_name(media), kind=name, work=float(cost(media)))
        case ShardItem(samples=samples):
            return Item(stage=name, shape=name, kind=name, work=float(len(samples)))
        case ScanItem() | CaptionItem():
            return Item(stage=name, shape=name, kind=name)
    raise AssertionError("no other kind of item")
