"""Ten-line stages, and a count of what they did that outlives their process."""

import os
import time
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
    loads: tuple[str, ...] = ()

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
    """Takes its process along: on one item every time, or before there is any."""

    name: str = "deadly"
    at: str = "call"

    def setup(self):
        if self.at == "setup":
            os._exit(1)

    def __call__(self, batch):
        results = super().__call__(batch)
        if any(item.item_id == "deadly" for item in batch):
            os._exit(1)
        return results


@dataclass
class Hanging(Counting):
    """Never comes back."""

    name: str = "hanging"

    def __call__(self, batch):
        time.sleep(1000)
        return list(batch)


@dataclass
class Slow(Counting):
    """Takes its time, and notes which process it was."""

    name: str = "slow"

    def __call__(self, batch):
        self.note(str(os.getpid()))
        time.sleep(0.5)
        return list(batch)


@dataclass
class Broken:
    """Cannot load its weights, or cannot do anything with a batch."""

    where: str
    name: str = "broken"
    loads: tuple[str, ...] = ()

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
