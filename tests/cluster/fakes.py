"""Ten-line stages, and a count of what they did that outlives their process."""

import os
from dataclasses import dataclass
from pathlib import Path

from rayreel.config.request import RenderRequest
from rayreel.errors import CheckpointError
from rayreel.stages.base import ItemFailure, RenderItem


def items(*ids: str) -> list[RenderItem]:
    request = RenderRequest(prompt="anything", seed=0)
    return [RenderItem(item_id=item_id, request=request) for item_id in ids]


@dataclass
class Counting:
    """Notes every batch that it sees; one item fails."""

    notes: Path
    name: str = "counting"

    def setup(self):
        pass

    def __call__(self, batch):
        self.note(" ".join(item.item_id for item in batch))
        return [_failure(self.name) if item.item_id == "bad" else item for item in batch]

    def note(self, text):
        with self.notes.open("a") as file:
            file.write(f"{text}\n")


@dataclass
class Deadly(Counting):
    """Takes its process along: on some items the first time, on others every time."""

    name: str = "deadly"

    def __call__(self, batch):
        results = super().__call__(batch)
        calls = self.notes.read_text().split()
        if any(i.item_id == "deadly" or calls.count(i.item_id) == 1 for i in batch):
            os._exit(1)
        return results


@dataclass
class Broken:
    """Cannot load its weights, or cannot do anything with a batch."""

    where: str
    name: str = "broken"

    def setup(self):
        if self.where == "setup":
            raise CheckpointError("weights.safetensors does not exist")

    def __call__(self, batch):
        raise KeyError(len(batch))


def _failure(stage):
    return ItemFailure(
        item_id="bad",
        stage=stage,
        error="MediaError",
        message="no picture",
        seed=0,
        attempt=1,
        seconds=0.0,
    )
