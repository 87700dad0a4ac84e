"""What was found out of each clip: a line of ``evaluation.jsonl``."""

import json
from collections.abc import Iterable

from pydantic import Field, ValidationError

from rayreel.config.base import StrictModel
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from rayreel.world.scene import Scene

LINES = "evaluation.jsonl"


class Seen(StrictModel):
    """What a stretch of a clip shows and sounds like, in words."""

    background: str
    things: tuple[dict[str, str | None], ...] = Field(
        description="colour, shape, size and motion of each; none where nothing fits"
    )
    tones: tuple[str, ...] = Field(description="colours of the tones, the loudest first")
    bounces_s: tuple[float, ...]
    clicks_s: tuple[float, ...]


class JudgedClip(StrictModel):
    """A clip, or a scene whose clip could not be made."""

    key: str = Field(description="identity of all that the verdicts depend on")
    suite: str
    name: str = Field(description="of the row")
    prompt: str
    asked: Scene
    path: str | None = Field(default=None, description="of the clip, in the run directory")
    fault: str = Field(default="", description="why there is nothing to judge")
    verdicts: dict[str, bool] = Field(
        default_factory=dict, description="whether each attribute is right, of all things"
    )
    things: tuple[dict[str, bool], ...] = Field(
        default=(), description="the same of each thing that was asked for"
    )
    numbers: dict[str, float] = Field(default_factory=dict, description="what was measured")
    seen: tuple[Seen, ...] = Field(default=(), description="of each part of the clip")


def read_lines(storage: Storage) -> dict[str, JudgedClip]:
    """What an earlier call has found out, by key; nothing if there was none.

    Raises:
        RayreelError: If the file is damaged.
        StorageError: If the storage does not answer.
    """
    if not storage.exists(LINES):
        return {}
    found = {}
    for number, line in enumerate(storage.read_text(LINES).splitlines(), start=1):
        try:
            clip = JudgedClip.model_validate_json(line)
        except ValidationError as error:
            raise RayreelError(
                f"line {number} of {storage.join(LINES)} is damaged "
                f"({error.errors()[0]['msg']}); remove the file to judge its clips again"
            ) from error
        found[clip.key] = clip
    return found


def write_lines(storage: Storage, clips: Iterable[JudgedClip]) -> None:
    """Write all lines; raises ``StorageError`` if the storage does not answer."""
    lines = (json.dumps(clip.model_dump(mode="json")) for clip in clips)
    storage.write_bytes(LINES, "".join(f"{line}\n" for line in lines).encode())
