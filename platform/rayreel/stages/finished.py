"""Items that an earlier try has finished."""

from rayreel.data.ledger import Ledger
from rayreel.stages.base import ItemT


def finished_item(ledger: Ledger, item: ItemT) -> ItemT | None:
    """The item with what its line in the ledger tells of; ``None`` without a line."""
    entry = ledger.find(item.item_id)
    return None if entry is None else item.finished(entry)
