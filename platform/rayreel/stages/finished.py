"""Items that an earlier try has finished."""

from dataclasses import replace

from rayreel.data.ledger import Ledger
from rayreel.stages.base import ClipFile, RenderItem


def finished_item(ledger: Ledger, item: RenderItem) -> RenderItem | None:
    """The item with the clip that its line in the ledger tells of; ``None`` without a line."""
    entry = ledger.find(item.item_id)
    if entry is None or entry.output is None or entry.sha256 is None or entry.num_bytes is None:
        return None
    output = ClipFile(path=entry.output, sha256=entry.sha256, num_bytes=entry.num_bytes)
    return replace(item, output=output, latents=None)
